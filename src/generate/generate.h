// From prompts to outputs with a model: the encoder once a prompt, then a search over its decoder with a key-value
// cache.
//
// Tokens are never dropped in decoding: an expert takes every token routed to it. Neither are the prompt's in the
// encoder, except where capacity is an absolute number a sequence (HF's convention, group_size 0 with expert_capacity),
// which a prompt's companions cannot change: there the encoder does what it does in evaluation and in HF. So a prompt
// gives the same output alone and in any batch, up to the rounding of products of another shape.
#pragma once

#include <cstdint>
#include <vector>

#include "generate/search.h"
#include "model/transformer.h"

namespace switchyard {

struct Prompt {
  std::vector<int32_t> ids = {};     // encoder tokens, EOS as given; 0 is padding and masked
  std::vector<int32_t> prefix = {};  // decoder tokens that the output begins with
};

struct GenerateOptions {
  SearchOptions search = {};
  int64_t batch_size = 8;  // prompts decoded together
};

// One entry a prompt, in the prompts' order. Throws Error if options do not fit, or a prompt is empty, only padding, or
// has an id outside the model's vocabulary.
std::vector<Hypotheses> generate(const ModelConfig& config, const ComputeWeights& weights,
                                 const std::vector<Prompt>& prompts, const GenerateOptions& options);

// An output that is given.
struct Scored {
  double score = 0.0;                           // sum of log_probabilities
  std::vector<double> token_log_probabilities;  // of each target token given the prompt and the tokens before it
};

// Log-probabilities of targets (EOS as given) by teacher forcing, `batch_size` at a time. targets[n] belongs to
// prompts[n].
std::vector<Scored> score_targets(const ModelConfig& config, const ComputeWeights& weights,
                                  const std::vector<std::vector<int32_t>>& prompts,
                                  const std::vector<std::vector<int32_t>>& targets, int64_t batch_size);

}  // namespace switchyard
