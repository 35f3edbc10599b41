// The log-probability of outputs that are given.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/transformer.h"

namespace switchyard {

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
