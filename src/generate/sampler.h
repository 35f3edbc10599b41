// The choice of one next token from one row of logits: which tokens may come, and how one of them is drawn.
//
// Two steps that every search shares: TokenRules change the scores by what the sequence holds already; SamplingOptions
// then draw. Both follow Hugging Face's logits processors and their order, so equal settings mean equal distributions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

// What the tokens so far forbid or make unlikely.
struct TokenRules {
  double repetition_penalty = 1.0;   // scores of tokens that occurred: s / r if s > 0, else s * r (CTRL §4.1)
  int64_t no_repeat_ngram_size = 0;  // no n tokens in a row occur twice; 0: off
  int64_t min_tokens = 0;            // EOS is forbidden before that many generated tokens
  std::vector<std::vector<int32_t>> bad_words = {};  // token sequences that never occur
};

// Throws Error naming the option that is out of range.
void validate(const TokenRules& rules);
bool changes_scores(const TokenRules& rules);  // false if every field is at its default

// Applies the rules to `scores` [vocab] (logits, or log-probabilities in beam search), forbidden tokens becoming -inf.
// `history`: all decoder tokens so far, start token and prefix included. `num_generated`: those that were not given.
void apply_rules(const TokenRules& rules, std::span<const int32_t> history, int64_t num_generated, int32_t eos_id,
                 std::span<float> scores);

// How a token is drawn. Filters work in sequence: temperature, top-k, top-p, typical-p.
struct SamplingOptions {
  double temperature = 0.0;  // logits are divided by it; 0: greedy, the other fields are not used
  int64_t top_k = 0;         // the k most likely (and those equal to the k-th); 0: off
  double top_p = 1.0;        // the fewest most likely tokens with a probability of at least p together; 1: off
  double typical_p = 1.0;    // the tokens nearest to the distribution's entropy, mass p (Meister et al. 2022); 1: off
  uint64_t seed = 0;
};
void validate(const SamplingOptions& options);

// What is left after the filters: ids with probabilities that sum to 1. Empty if every logit is -inf.
struct TokenDistribution {
  std::vector<int32_t> ids;
  std::vector<double> probabilities;
};
TokenDistribution filtered_distribution(const SamplingOptions& options, std::span<const float> logits);

// The next token: the first of the largest logits if greedy, else drawn by a number that is a pure function of (seed,
// number of the request, position, sample), so that a sample does not depend on what is decoded beside it. -1 if every
// logit is -inf.
int32_t choose_token(const SamplingOptions& options, std::span<const float> logits, uint64_t request_number,
                     uint64_t position, uint32_t sample = 0);

}  // namespace switchyard
