#include "model/fused_decoding.h"

#include <ATen/ops/empty.h>
#include <omp.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "kernels/decoder_block.h"
#include "kernels/rms_norm.h"
#include "kernels/routing.h"
#include "model/routing.h"
#include "ops/attention.h"
#include "ops/backend.h"
#include "ops/hidden_layer.h"
#include "ops/layers.h"
#include "ops/product.h"
#include "ops/quantized.h"

namespace switchyard {
namespace {

using kernels::StepMatrix;

constexpr int64_t kMinParallel = int64_t{1} << 18;  // values of a matrix below which threads wait more than they work

bool has_kernels(const ModelConfig& config, const ComputeWeights& weights, int64_t max_length) {
  const auto some = at::empty({0}, at::TensorOptions(weights.dtype).device(weights.output.device()));
  bool fits = weights.exchange == nullptr && weights.split == nullptr && ops::kernel_activation(config.activation) &&
              config.routing.router != RouterKind::kHash && max_length > 0 &&
              ops::is_fused(some, ops::Kernel::kPanels, {config.d_model, config.inner_size(), config.d_ff});
  for (const auto& block : weights.decoder.blocks) {
    const auto& layer = block.feed_forward;
    fits &= !block.self_attention.is_sparse() && (!layer.is_sparse() || !layer.dense.wo.defined());
  }
  return fits;
}

// Of [columns, ...], or of the first of [matrices, columns, ...].
StepMatrix matrix_of(const at::Tensor& matrix) {
  if (!matrix.defined()) return {};
  SY_CHECK(matrix.is_contiguous(), "decoding: a matrix ", matrix.sizes(), " is not contiguous");
  return {.data = matrix.const_data_ptr(),
          .columns = matrix.size(-2),
          .inner = ops::inputs_of(matrix),
          .form = ops::quantized_form(matrix.scalar_type())};
}

kernels::StepFeedForward network_of(const FeedForwardMatrices& matrices, Activation activation) {
  return {*ops::kernel_activation(activation), matrix_of(matrices.wi), matrix_of(matrices.wi_1),
          matrix_of(matrices.wo)};
}

// Where tokens go in one sparse layer.
struct Choice {
  std::vector<int64_t> token, num_rows;
  std::vector<float> gate;
  kernels::StepRows rows() const { return {token, gate, num_rows}; }
};

}  // namespace

template <class T>
class FusedDecodingOf : public FusedDecoding {
 public:
  FusedDecodingOf(const ModelConfig& config, const ComputeWeights& weights, DecoderCache& cache)
      : cache_(cache),
        threads_(config.d_model * config.d_ff >= kMinParallel ? omp_get_max_threads() : 1),
        shape_{.rows = ops::kFewRows,
               .d_model = config.d_model,
               .num_heads = config.num_heads,
               .d_kv = config.d_kv,
               .d_ff = config.d_ff,
               .expert_rows = ops::kFewRows * most_choices(config),
               .epsilon = static_cast<float>(config.layer_norm_epsilon)},
        memory_(shape_, threads_),
        normed_(shape_.rows * shape_.d_model),
        wide_(shape_.rows * shape_.d_model) {
    const auto& decoder = weights.decoder;
    biases_.push_back(bias_of(config, decoder.relative_attention_bias));
    for (size_t number = 0; number < decoder.blocks.size(); ++number) {
      const auto& block = decoder.blocks[number];
      if (block.relative_attention_bias.defined()) biases_.push_back(bias_of(config, block.relative_attention_bias));
      Block step;
      step.self = {.norm = ops::read<float>(block.self_attention_norm),
                   .in = matrix_of(block.self_attention.qkv),
                   .out = matrix_of(block.self_attention.o),
                   .bias = ops::read<float>(biases_.back())};
      step.cross = {.norm = ops::read<float>(block.cross_attention_norm),
                    .in = matrix_of(block.cross_attention.q),
                    .out = matrix_of(block.cross_attention.o)};
      step.norm = ops::read<float>(block.feed_forward_norm);
      const auto& layer = block.feed_forward;
      step.network = network_of(layer.is_sparse() ? layer.experts : layer.dense, config.activation);
      blocks_.push_back(step);
    }
  }

  at::Tensor step(const ModelConfig& config, const ComputeWeights& weights, const CachedRows& rows,
                  const at::Tensor& ids, std::vector<SparseLayer>* sparse_layers) override {
    shape_.rows = ids.size(0);
    const auto embedded = ops::embedding(weights.decoder.embedding, ids, weights.vocabulary()).to(at::kFloat);
    std::copy_n(ops::read<float>(embedded.contiguous()), embedded.numel(), memory_.x.data());
    place(rows);
    Choice choice;
    for (size_t block = 0;; ++block) {
      // From the rows that wait at one sparse layer's experts to the next sparse layer.
      const size_t first = block;
      while (block < blocks_.size() && !weights.decoder.blocks[block].feed_forward.is_sparse()) ++block;
      together([&](auto& thread) {
        if (!choice.num_rows.empty()) thread.combine(choice.rows());
        for (size_t number = first; number < std::min(block + 1, blocks_.size()); ++number) {
          thread.attention(blocks_[number].self);
          thread.attention(blocks_[number].cross);
          if (number < block) thread.feed_forward(blocks_[number].norm, blocks_[number].network);
        }
      });
      if (block == blocks_.size()) break;
      choice = choose(config, weights, ids, block, sparse_layers);
      run_experts(weights.decoder.blocks[block].feed_forward, blocks_[block], choice);
    }
    auto hidden = at::empty({shape_.rows, 1, shape_.d_model}, at::TensorOptions(weights.dtype));
    normalise(ops::read<float>(weights.decoder.final_norm), ops::write<T>(hidden));
    return hidden;
  }

 private:
  struct Block {
    kernels::StepAttention<T> self, cross;
    const float* norm = nullptr;
    kernels::StepFeedForward network;  // dense, or the first of the experts
  };

  static int64_t most_choices(const ModelConfig& config) {
    const auto& routing = config.routing;
    return std::max({int64_t{1}, routing.num_selected_experts, routing.num_reroute_stages});
  }

  at::Tensor bias_of(const ModelConfig& config, const at::Tensor& table) const {
    return ops::relative_bias_by_distance(table, {.query_length = 1,
                                                  .key_length = cache_.max_length(),
                                                  .query_offset = cache_.max_length() - 1,
                                                  .bidirectional = false,
                                                  .num_buckets = config.relative_attention_num_buckets,
                                                  .max_distance = config.relative_attention_max_distance});
  }

  template <class Work>
  void together(Work&& work) {
#pragma omp parallel num_threads(threads_)
    {
      kernels::StepThread<T> thread(shape_, memory_, omp_get_thread_num(), omp_get_num_threads());
      work(thread);
    }
  }

  // The keys and values of this step's rows; the encoder's may have moved since the last.
  void place(const CachedRows& rows) {
    const auto& mask = cache_.encoder_mask_;
    for (size_t number = 0; number < blocks_.size(); ++number) {
      auto& [self, cross, norm, network] = blocks_[number];
      auto& layer = cache_.layers_[number];
      self.keys = ops::write<T>(layer.self_keys);
      self.values = ops::write<T>(layer.self_values);
      self.key_length = cache_.max_length();
      self.slot = rows.slots_.data();
      self.num_keys = rows.num_keys_.data();
      cross.keys = ops::write<T>(layer.cross_keys);
      cross.values = ops::write<T>(layer.cross_values);
      cross.key_length = cache_.encoder_capacity_;
      cross.mask = mask.defined() ? ops::read<bool>(mask) : nullptr;
      cross.slot = rows.prompts_.data();
      cross.num_keys = rows.num_encoder_keys_.data();
    }
  }

  void normalise(const float* scale, T* to) const {
    kernels::rms_norm(memory_.x.data(), scale, to, shape_.rows, shape_.d_model, shape_.epsilon);
  }

  Choice choose(const ModelConfig& config, const ComputeWeights& weights, const at::Tensor& ids, size_t block,
                std::vector<SparseLayer>* sparse_layers) {
    const auto& routing = config.routing;
    const auto& router = weights.decoder.blocks[block].feed_forward.router;
    const bool is_simple = routing.router != RouterKind::kNoTokenLeftBehind && routing.num_selected_experts == 1 &&
                           routing.router_score == RouterScore::kSoftmax && !router.selection_bias.defined();
    normalise(blocks_[block].norm, normed_.data());
    if (is_simple && sparse_layers == nullptr) return best_expert(routing, router);
    auto x = at::empty({shape_.rows, shape_.d_model}, at::TensorOptions(weights.dtype));
    std::copy_n(normed_.data(), x.numel(), ops::write<T>(x));
    auto routed = route_layer(routing, router,
                              {.x = x,
                               .ids = ids,
                               .mask = {},
                               .num_experts = config.layer_num_experts(true, static_cast<int64_t>(block)),
                               .is_decoder = true,
                               .drop_tokens = false,
                               .encoder_length = 1,
                               .noise = {}});
    const auto& dispatch = routed.routing.dispatch;
    const auto* token = ops::read<int64_t>(dispatch.token);
    const auto gate = routed.routing.gate.contiguous();
    Choice choice{{token, token + dispatch.num_rows()},
                  dispatch.rows_by_expert(),
                  {ops::read<float>(gate), ops::read<float>(gate) + gate.numel()}};
    if (sparse_layers != nullptr)
      sparse_layers->push_back({"decoder." + std::to_string(block), std::move(routed.router_logits),
                                std::move(routed.routing), std::move(routed.load_loss)});
    return choice;
  }

  // Each token's one expert, as ops::route() chooses it.
  Choice best_expert(const RoutingConfig& routing, const RouterWeights& router) {
    const int64_t rows = shape_.rows, num_experts = router.weight.size(0);
    const auto count = static_cast<size_t>(num_experts);
    std::transform(normed_.data(), normed_.data() + rows * shape_.d_model, wide_.data(),
                   [](T value) { return kernels::to_float(value); });
    std::vector<float> logits(static_cast<size_t>(rows) * count), probability(logits.size());
    int64_t best[ops::kFewRows];
    float log_partition[ops::kFewRows], entropy[ops::kFewRows];
    kernels::router_logits(wide_.data(), ops::read<float>(router.weight),
                           router.bias.defined() ? ops::read<float>(router.bias) : nullptr, rows, num_experts,
                           shape_.d_model, logits.data());
    kernels::route_forward(logits.data(), rows, num_experts, probability.data(), best, log_partition, entropy);
    if (routing.selection_dtype == PartDtype::kCompute && sizeof(T) == sizeof(kernels::BFloat16)) {
      auto rounded = probability;
      for (float& value : rounded) value = kernels::to_float(kernels::to_bfloat16(value));
      kernels::top_choices(rounded.data(), rows, num_experts, 1, best);
    }
    Choice choice{{}, std::vector<int64_t>(count, 0), {}};
    for (int64_t expert = 0; expert < num_experts; ++expert)
      for (int64_t row = 0; row < rows; ++row) {
        if (best[row] != expert) continue;
        choice.token.push_back(row);
        choice.gate.push_back(probability[static_cast<size_t>(row * num_experts + expert)]);
        ++choice.num_rows[static_cast<size_t>(expert)];
      }
    return choice;
  }

  void run_experts(const ComputeFeedForward& layer, const Block& block, const Choice& choice) {
    const auto work = [&](Slice run) {
      const auto begin = choice.num_rows.begin();
      const auto first = std::accumulate(begin, begin + run.begin, int64_t{0});
      together(
          [&](auto& thread) { thread.experts(block.norm, block.network, choice.rows(), run.begin, run.end, first); });
    };
    if (layer.expert_runs)
      layer.expert_runs(choice.num_rows, work);
    else
      work({0, static_cast<int64_t>(choice.num_rows.size())});
  }

  DecoderCache& cache_;
  int threads_;
  kernels::StepShape shape_;
  kernels::StepMemory<T> memory_;
  kernels::Scratch<T> normed_;      // [rows, d_model], of a router's input
  kernels::Scratch<float> wide_;    // the same in f32
  std::vector<at::Tensor> biases_;  // [num_heads, max_length]: the stack's, and those of blocks with their own
  std::vector<Block> blocks_;
};

std::shared_ptr<FusedDecoding> FusedDecoding::make(const ModelConfig& config, const ComputeWeights& weights,
                                                   DecoderCache& cache) {
  if (!has_kernels(config, weights, cache.max_length())) return nullptr;
  if (weights.dtype == at::kBFloat16)
    return std::make_shared<FusedDecodingOf<kernels::BFloat16>>(config, weights, cache);
  return std::make_shared<FusedDecodingOf<float>>(config, weights, cache);
}

}  // namespace switchyard
