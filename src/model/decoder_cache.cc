#include "model/decoder_cache.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "ops/layers.h"

namespace switchyard {

DecoderCache start_decoding(const ModelConfig& config, const ComputeWeights& weights, const at::Tensor& encoder_hidden,
                            const at::Tensor& encoder_mask, int64_t max_length) {
  const at::NoGradGuard no_grad;
  DecoderCache cache{.length = 0, .encoder_mask = encoder_mask, .layers = {}};
  for (const auto& block : weights.decoder.blocks) {
    const auto empty = [&] {
      return at::empty({encoder_hidden.size(0), max_length, config.inner_size()}, encoder_hidden.options());
    };
    cache.layers.push_back({empty(), empty(), ops::linear(encoder_hidden, block.cross_attention.k),
                            ops::linear(encoder_hidden, block.cross_attention.v)});
  }
  return cache;
}

void select_rows_(DecoderCache& cache, const at::Tensor& rows) {
  for (auto& layer : cache.layers)
    for (auto* tensor : {&layer.self_keys, &layer.self_values, &layer.cross_keys, &layer.cross_values})
      *tensor = tensor->index_select(0, rows);
  if (cache.encoder_mask.defined()) cache.encoder_mask = cache.encoder_mask.index_select(0, rows);
}

}  // namespace switchyard
