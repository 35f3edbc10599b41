// A prompt's way through the encoder in generation: as if by itself, without padding at its end.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model/transformer.h"

namespace switchyard {

// Throws Error naming `what` if an id lies outside the model's vocabulary.
void check_ids(std::span<const int32_t> ids, int64_t vocab_size, const char* what);
// The same for a prompt, which must have a token that is not padding (id 0).
void check_prompt(std::span<const int32_t> ids, int64_t vocab_size);

at::Tensor row_tensor(std::span<const int32_t> ids, at::Device device);  // [1, length] i64

// Hears what the sparse layers of a pass did.
using RoutingListener = std::function<void(const std::vector<SparseLayer>&)>;

struct EncodedPrompt {
  at::Tensor hidden;  // [1, length, d_model]
  at::Tensor mask;    // [1, length] bool; undefined unless there is padding before the end
};

// The prompt is its own routing group: experts that choose choose among its tokens. None is dropped, except where
// capacity is an absolute number a sequence (HF's convention, group_size 0 with expert_capacity): there the encoder
// does what it does in evaluation and in HF.
// Prompts of one length may share a pass; each result has the bits that it has alone.
std::vector<EncodedPrompt> encode_prompts(const ModelConfig& config, const ComputeWeights& weights,
                                          const std::vector<std::span<const int32_t>>& prompts,
                                          const RoutingListener& on_routing = {});
EncodedPrompt encode_prompt(const ModelConfig& config, const ComputeWeights& weights, std::span<const int32_t> ids);

}  // namespace switchyard
