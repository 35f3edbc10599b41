// What step-by-step decoding keeps between steps.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/transformer.h"

namespace switchyard {

// Keys and values that decoding keeps: the encoder's once, the decoder's own growing with each step.
struct DecoderCache {
  int64_t length = 0;       // positions decoded so far
  at::Tensor encoder_mask;  // [batch, encoder_length] bool or undefined
  struct Layer {
    at::Tensor self_keys, self_values;    // [batch, max_length, heads * d_kv]; the first `length` positions are filled
    at::Tensor cross_keys, cross_values;  // [batch, encoder_length, heads * d_kv]
  };
  std::vector<Layer> layers;
};
DecoderCache start_decoding(const ModelConfig& config, const ComputeWeights& weights, const at::Tensor& encoder_hidden,
                            const at::Tensor& encoder_mask, int64_t max_length);

// Keeps rows `rows` [new_batch] i64 of the batch, in that order (beams, finished prompts).
void select_rows_(DecoderCache& cache, const at::Tensor& rows);

}  // namespace switchyard
