#include "generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/random.h"

namespace switchyard {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

struct Token {
  int32_t id;
  float logit;
};

// More likely first; equal ones by id, so that the order is the same on every machine.
bool before(const Token& a, const Token& b) { return a.logit > b.logit || (a.logit == b.logit && a.id < b.id); }

void forbid_repeated_ngrams(int64_t ngram_size, std::span<const int32_t> history, std::span<float> scores) {
  const auto size = static_cast<size_t>(ngram_size);
  if (history.size() + 1 < size) return;
  const auto open = history.last(size - 1);  // the n-gram that the next token would complete
  for (size_t start = 0; start + size <= history.size(); ++start)
    if (std::equal(open.begin(), open.end(), history.begin() + static_cast<std::ptrdiff_t>(start)))
      scores[static_cast<size_t>(history[start + size - 1])] = kForbidden;
}

void penalize_repetition(double penalty, std::span<const int32_t> history, std::span<float> scores) {
  std::vector<int32_t> seen(history.begin(), history.end());
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  for (const int32_t id : seen) {
    float& score = scores[static_cast<size_t>(id)];
    score = static_cast<float>(score < 0 ? score * penalty : score / penalty);
  }
}

void forbid_words(const std::vector<std::vector<int32_t>>& words, std::span<const int32_t> history, int32_t eos_id,
                  std::span<float> scores) {
  for (const auto& word : words) {
    const auto prefix = std::span(word).first(word.size() - 1);
    if (prefix.size() > history.size() || (word.size() == 1 && word[0] == eos_id)) continue;
    if (std::equal(prefix.begin(), prefix.end(), history.end() - static_cast<std::ptrdiff_t>(prefix.size())))
      scores[static_cast<size_t>(word.back())] = kForbidden;
  }
}

void keep_top_k(size_t k, std::vector<Token>& tokens) {
  if (k >= tokens.size()) return;
  std::nth_element(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(k - 1), tokens.end(), before);
  const float smallest = tokens[k - 1].logit;
  std::erase_if(tokens, [smallest](const Token& token) { return token.logit < smallest; });
}

float largest_logit(const std::vector<Token>& tokens) {
  float largest = kForbidden;
  for (const auto& token : tokens) largest = std::max(largest, token.logit);
  return largest;
}

// exp(logit - largest) of every token, and their sum.
double exponentials(const std::vector<Token>& tokens, std::vector<double>& values) {
  const float largest = largest_logit(tokens);
  values.resize(tokens.size());
  double sum = 0.0;
  for (size_t n = 0; n < tokens.size(); ++n) sum += values[n] = std::exp(tokens[n].logit - largest);
  return sum;
}

// A token stays if those more likely than it have less than p together. Only as much is sorted as p needs: most of a
// vocabulary of 32,000 has next to no mass.
void keep_top_p(double p, std::vector<Token>& tokens) {
  std::vector<double> values;
  const double target = p * exponentials(tokens, values);
  const float largest = largest_logit(tokens);
  double mass = 0.0;
  size_t sorted = 0;
  for (size_t block = 64; sorted < tokens.size(); block *= 4) {
    const size_t end = std::min(tokens.size(), sorted + block);
    const auto at = [&](size_t place) { return tokens.begin() + static_cast<std::ptrdiff_t>(place); };
    if (end < tokens.size()) std::nth_element(at(sorted), at(end), tokens.end(), before);
    std::sort(at(sorted), at(end), before);
    for (; sorted < end; ++sorted) {
      if (sorted > 0 && mass >= target) {
        tokens.resize(sorted);
        return;
      }
      mass += std::exp(tokens[sorted].logit - largest);
    }
  }
}

// Meister et al. 2022, "Locally typical sampling", as in HF: ordered by |-log p - entropy|, the first whose mass
// reaches p.
void keep_typical(double p, std::vector<Token>& tokens) {
  std::vector<double> values;
  const double log_sum = std::log(exponentials(tokens, values));
  const float largest = largest_logit(tokens);
  double entropy = 0.0;
  for (const auto& token : tokens) {
    const double log_probability = token.logit - largest - log_sum;
    entropy -= log_probability * std::exp(log_probability);
  }
  struct Typical {
    Token token;
    double distance, probability;
  };
  std::vector<Typical> ordered;
  for (const auto& token : tokens) {
    const double log_probability = token.logit - largest - log_sum;
    ordered.push_back({token, std::abs(-log_probability - entropy), std::exp(log_probability)});
  }
  std::sort(ordered.begin(), ordered.end(), [](const Typical& a, const Typical& b) {
    return a.distance < b.distance || (a.distance == b.distance && a.token.id < b.token.id);
  });
  size_t last = 0;
  for (double mass = ordered[0].probability; mass < p && last + 1 < ordered.size(); mass += ordered[last].probability)
    ++last;
  tokens.clear();
  for (const auto& entry : ordered)
    if (entry.distance <= ordered[last].distance) tokens.push_back(entry.token);
}

}  // namespace

void validate(const TokenRules& rules) {
  SY_CHECK(rules.repetition_penalty > 0, "repetition penalty ", rules.repetition_penalty,
           ": expected more than 0; 1 is off");
  SY_CHECK(rules.no_repeat_ngram_size >= 0, "no-repeat n-gram size ", rules.no_repeat_ngram_size,
           ": expected 0 (off) or more");
  SY_CHECK(rules.min_tokens >= 0, "minimum of tokens ", rules.min_tokens, ": expected 0 or more");
  for (const auto& word : rules.bad_words)
    SY_CHECK(!word.empty(), "bad words: expected at least one token each, got an empty one");
}

bool changes_scores(const TokenRules& rules) {
  return rules.repetition_penalty != 1.0 || rules.no_repeat_ngram_size > 0 || rules.min_tokens > 0 ||
         !rules.bad_words.empty();
}

void apply_rules(const TokenRules& rules, std::span<const int32_t> history, int64_t num_generated, int32_t eos_id,
                 std::span<float> scores) {
  if (rules.repetition_penalty != 1.0) penalize_repetition(rules.repetition_penalty, history, scores);
  if (rules.no_repeat_ngram_size > 0) forbid_repeated_ngrams(rules.no_repeat_ngram_size, history, scores);
  forbid_words(rules.bad_words, history, eos_id, scores);
  if (num_generated < rules.min_tokens) scores[static_cast<size_t>(eos_id)] = kForbidden;
}

void validate(const SamplingOptions& options) {
  SY_CHECK(std::isfinite(options.temperature) && options.temperature >= 0, "temperature ", options.temperature,
           ": expected 0 (greedy) or more");
  SY_CHECK(options.top_k >= 0, "top-k ", options.top_k, ": expected 0 (off) or more");
  SY_CHECK(options.top_p > 0 && options.top_p <= 1, "top-p ", options.top_p, ": expected more than 0, at most 1 (off)");
  SY_CHECK(options.typical_p > 0 && options.typical_p <= 1, "typical-p ", options.typical_p,
           ": expected more than 0, at most 1 (off)");
}

TokenDistribution filtered_distribution(const SamplingOptions& options, std::span<const float> logits) {
  std::vector<Token> tokens;
  tokens.reserve(logits.size());
  const auto temperature = static_cast<float>(options.temperature > 0 ? options.temperature : 1.0);
  for (size_t id = 0; id < logits.size(); ++id)
    if (logits[id] > kForbidden) tokens.push_back({static_cast<int32_t>(id), logits[id] / temperature});
  if (tokens.empty()) return {};
  if (options.top_k > 0) keep_top_k(static_cast<size_t>(options.top_k), tokens);
  if (options.top_p < 1) keep_top_p(options.top_p, tokens);
  if (options.typical_p < 1) keep_typical(options.typical_p, tokens);

  TokenDistribution distribution;
  const double sum = exponentials(tokens, distribution.probabilities);
  distribution.ids.reserve(tokens.size());
  for (size_t n = 0; n < tokens.size(); ++n) {
    distribution.ids.push_back(tokens[n].id);
    distribution.probabilities[n] /= sum;
  }
  return distribution;
}

int32_t choose_token(const SamplingOptions& options, std::span<const float> logits, uint64_t request_number,
                     uint64_t position, uint32_t sample) {
  if (options.temperature == 0) {
    float largest = kForbidden;
#pragma omp simd reduction(max : largest)
    for (size_t id = 0; id < logits.size(); ++id) largest = std::max(largest, logits[id]);
    if (largest == kForbidden) return -1;
    return static_cast<int32_t>(std::find(logits.begin(), logits.end(), largest) - logits.begin());
  }
  const auto distribution = filtered_distribution(options, logits);
  if (distribution.ids.empty()) return -1;
  NoiseStream stream({.seed = options.seed, .purpose = NoisePurpose::kSampling, .step = position, .layer = sample},
                     request_number);
  double left =
      static_cast<double>(stream.next64() >> 11) * 0x1p-53;  // [0, 1): the point on the cumulative distribution
  for (size_t n = 0; n < distribution.ids.size(); ++n) {
    left -= distribution.probabilities[n];
    if (left < 0) return distribution.ids[n];
  }
  return distribution.ids.back();  // rounding left a little of the interval uncovered
}

}  // namespace switchyard
