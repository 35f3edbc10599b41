#include "model/compute_weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/cat.h>

#include <cmath>

#include "ops/quantized.h"

namespace switchyard {
namespace {

bool follow_each_other(const std::vector<at::Tensor>& matrices) {
  for (size_t n = 0; n < matrices.size(); ++n) {
    const auto& matrix = matrices[n];
    if (matrix.requires_grad() || matrix.dim() != 2 || !matrix.is_contiguous() || matrix.is_meta()) return false;
    if (n > 0 && (!matrix.is_alias_of(matrices[n - 1]) ||
                  matrix.storage_offset() != matrices[n - 1].storage_offset() + matrices[n - 1].numel()))
      return false;
  }
  return true;
}

// Matrices [..., out, in] of one input as one, [..., sum of out, in].
at::Tensor join(const std::vector<at::Tensor>& matrices) {
  if (!follow_each_other(matrices)) return at::cat(matrices, -2);
  int64_t rows = 0;
  for (const auto& matrix : matrices) rows += matrix.size(0);
  const int64_t width = matrices.front().size(1);
  return at::as_strided(matrices.front(), {rows, width}, {width, 1}, matrices.front().storage_offset());
}

// What is defined of a feed-forward network, made by `make`.
FeedForwardMatrices matrices_of(const at::Tensor& wi, const at::Tensor& wi_1, const at::Tensor& wo,
                                const MatrixMaker& make) {
  return {make({wi}), wi_1.defined() ? make({wi_1}) : wi_1, make({wo})};
}

RouterWeights router_of(const RouterWeights& router, const MatrixMaker& make) {
  RouterWeights made = router;  // the selection bias is a buffer, which every pass reads itself
  for (auto* tensor : {&made.weight, &made.bias})
    if (tensor->defined()) *tensor = make({*tensor});
  return made;
}

ComputeFeedForward feed_forward_of(const FeedForwardWeights& weights, const MatrixMaker& make) {
  const auto own = matrices_of(weights.wi.defined() ? weights.wi : weights.wi_0, weights.wi_1, weights.wo, make);
  if (!weights.is_sparse()) return {.dense = own, .experts = {}, .router = {}};
  FeedForwardMatrices shared;
  if (weights.shared_wo.defined())
    shared = matrices_of(weights.shared_wi.defined() ? weights.shared_wi : weights.shared_wi_0, weights.shared_wi_1,
                         weights.shared_wo, make);
  return {.dense = shared, .experts = own, .router = router_of(weights.router, make)};
}

ComputeStack stack_of(const StackWeights& weights, const at::Tensor& shared, const MatrixMaker& make) {
  const auto if_defined = [&](const at::Tensor& tensor) { return tensor.defined() ? make({tensor}) : tensor; };
  ComputeStack stack{.embedding = weights.embedding.defined() ? weights.embedding : shared,
                     .relative_attention_bias = if_defined(weights.relative_attention_bias),
                     .blocks = {},
                     .final_norm = if_defined(weights.final_norm)};
  for (const auto& block : weights.blocks) {
    const auto &self = block.self_attention, &cross = block.cross_attention;
    stack.blocks.push_back(
        {.relative_attention_bias = if_defined(block.relative_attention_bias),
         .self_attention_norm = if_defined(block.self_attention_norm),
         .cross_attention_norm = if_defined(block.cross_attention_norm),
         .feed_forward_norm = if_defined(block.feed_forward_norm),
         .self_attention = {make({self.q, self.k, self.v}), make({self.o}), router_of(self.router, make)},
         .cross_attention = {},
         .feed_forward = feed_forward_of(block.feed_forward, make)});
    if (cross.q.defined())
      stack.blocks.back().cross_attention = {make({cross.q}), make({cross.k, cross.v}), make({cross.o})};
  }
  return stack;
}

}  // namespace

at::ScalarType dtype_in_pass(const ParameterSpec& spec, at::ScalarType dtype) {
  return spec.is_wide && dtype != at::kDouble ? at::kFloat : dtype;
}

ComputeWeights arrange_weights(const ModelConfig& config, const ModelWeights& weights, at::ScalarType dtype,
                               const at::Tensor& output, const MatrixMaker& make) {
  return {.dtype = dtype,
          .output = output,
          .output_scale = config.scale_output ? 1.0 / std::sqrt(static_cast<double>(config.d_model)) : 1.0,
          .encoder = stack_of(weights.encoder, weights.shared, make),
          .decoder = stack_of(weights.decoder, weights.shared, make),
          .vocab_size = config.vocab_size};
}

ComputeWeights cast_weights(const ModelConfig& config, const ModelWeights& weights, at::ScalarType dtype) {
  ModelWeights cast = weights;
  for (auto& [spec, tensor] : list_parameters(config, cast)) {
    // Input embeddings stay as they are: a look-up reads few of their rows.
    // Quantised matrices are read as they are.
    if (spec.role != Role::kEmbedding || dtype == at::kDouble)
      if (!ops::is_quantized(*tensor)) *tensor = tensor->to(dtype_in_pass(spec, dtype));
  }
  return arrange_weights(
      config, cast, dtype, config.tie_output ? cast.shared.to(dtype) : cast.lm_head,
      [](const std::vector<at::Tensor>& parts) { return parts.size() == 1 ? parts.front() : join(parts); });
}

}  // namespace switchyard
