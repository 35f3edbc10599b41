#include "checkpoint/upcycle.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mul.h>

#include <cmath>

#include "base/error.h"

namespace switchyard {
namespace {

// Logits of a normalised token then have a standard deviation of about this: enough to tell experts apart, too little
// to move the gates from 1 / num_experts.
constexpr double kLogitDeviation = 0.01;

at::Tensor copies(const at::Tensor& weight, int64_t num_experts) {
  return weight.defined() ? weight.unsqueeze(0).expand({num_experts, -1, -1}).clone(at::MemoryFormat::Contiguous)
                          : at::Tensor();
}

void make_sparse(FeedForwardWeights& layer, int64_t num_experts, const at::Tensor& fresh_router, double scale) {
  for (at::Tensor* weight : {&layer.wi, &layer.wi_0, &layer.wi_1, &layer.wo}) *weight = copies(*weight, num_experts);
  layer.wo.mul_(num_experts);
  layer.router.weight = (fresh_router * scale).to(layer.wo.scalar_type());
}

}  // namespace

LoadedModel upcycle(const LoadedModel& dense, const UpcycleOptions& options) {
  SY_CHECK(!dense.config.has_sparse_layers(), "the model has experts already (", dense.config.routing.num_experts,
           "); only a dense one can be upcycled");
  SY_CHECK(options.num_experts >= 2, "upcycling makes ", options.num_experts, " experts, expected at least 2");
  LoadedModel sparse = dense;
  sparse.config.routing = RoutingConfig{};
  sparse.config.routing.num_experts = options.num_experts;
  sparse.config.encoder_sparse_step = sparse.config.decoder_sparse_step = options.sparse_step;
  sparse.config.initializer_scale = 0.1;
  validate(sparse.config);

  // Routers are drawn by the model's own initialiser, so that their noise has its names and counters; all else of it is
  // as small as can be.
  ModelConfig routers_only = sparse.config;
  routers_only.vocab_size = routers_only.d_ff = routers_only.num_heads = routers_only.d_kv = 1;
  const ModelWeights fresh = initialize(routers_only, options.seed);
  const double stddev = std::sqrt(routers_only.initializer_scale / static_cast<double>(routers_only.d_model));
  const double scale = kLogitDeviation / std::sqrt(static_cast<double>(routers_only.d_model)) / stddev;
  const auto convert = [&](StackWeights& stack, const StackWeights& fresh_stack, bool is_decoder) {
    for (size_t block = 0; block < stack.blocks.size(); ++block) {
      const auto number = static_cast<int64_t>(block);
      if (is_decoder ? sparse.config.is_sparse_decoder_layer(number) : sparse.config.is_sparse_encoder_layer(number))
        make_sparse(stack.blocks[block].feed_forward, options.num_experts,
                    fresh_stack.blocks[block].feed_forward.router.weight, scale);
    }
  };
  convert(sparse.weights.encoder, fresh.encoder, false);
  convert(sparse.weights.decoder, fresh.decoder, true);
  return sparse;
}

}  // namespace switchyard
