// The log-probability of outputs that are given.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "model/transformer.h"

namespace switchyard {

struct TokenScore {
  double log_probability = 0.0;                            // of the token given the prompt and the tokens before it
  std::vector<std::pair<int32_t, double>> likeliest = {};  // ids with their log-probabilities, the likeliest first
};

// By teacher forcing after a prompt encoded as in generation (generate/prompt.h), with the `num_likeliest` tokens that
// could have stood in each one's place. Throws Error if the prompt or the target is empty or has an id outside the
// model's vocabulary, or num_likeliest is not between 0 and its size.
std::vector<TokenScore> score_tokens(const ModelConfig& config, const ComputeWeights& weights,
                                     std::span<const int32_t> prompt, std::span<const int32_t> target,
                                     int64_t num_likeliest);

struct Scored {
  double score = 0.0;                           // sum of log_probabilities
  std::vector<double> token_log_probabilities;  // of each target token given the prompt and the tokens before it
};

// Log-probabilities of targets (EOS as given) by teacher forcing, each by itself, after a prompt encoded as in
// generation (generate/prompt.h). Throws Error if the prompt or a target is empty or has an id outside the model's
// vocabulary.
std::vector<Scored> score_targets(const ModelConfig& config, const ComputeWeights& weights,
                                  std::span<const int32_t> prompt, const std::vector<std::vector<int32_t>>& targets);

}  // namespace switchyard
