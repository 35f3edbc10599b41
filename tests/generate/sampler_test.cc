// The sampler against published fixtures (T5X decoding_test.py), the filters' definitions, and observed frequencies.
#include "generate/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "base/error.h"

namespace switchyard {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::map<int32_t, double> kept(const SamplingOptions& options, const std::vector<float>& logits) {
  const auto distribution = filtered_distribution(options, logits);
  std::map<int32_t, double> result;
  for (size_t n = 0; n < distribution.ids.size(); ++n) result[distribution.ids[n]] = distribution.probabilities[n];
  EXPECT_EQ(result.size(), distribution.ids.size()) << "an id stands twice";
  return result;
}

std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> result;
  double sum = 0;
  const float largest = *std::max_element(logits.begin(), logits.end());
  for (const float logit : logits) sum += result.emplace_back(std::exp((logit - largest) / temperature));
  for (auto& value : result) value /= sum;
  return result;
}

std::vector<float> random_logits(size_t size, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> logits(size);
  for (auto& logit : logits) logit = normal(generator);
  return logits;
}

const std::vector<float> kTopPLogits = {-1.2f, -1e7f, -2.3f, -0.51f};  // probabilities .30, 0, .10, .60

TEST(Sampler,
     TopPOfT5X) {  // conventions of T5X's fixtures: smallest set with cumulative probability >= p, after temperature
  EXPECT_EQ(kept({.temperature = 1.0, .top_p = 0.55}, kTopPLogits).size(), 1u);
  EXPECT_EQ(kept({.temperature = 1.0, .top_p = 0.55}, kTopPLogits).count(3), 1u);
  EXPECT_EQ(kept({.temperature = 0.8, .top_p = 0.63}, kTopPLogits).size(), 1u) << "temperature comes before top-p";
  EXPECT_EQ(kept({.temperature = 1.0, .top_p = 0.63}, kTopPLogits).size(), 2u);
  const auto both = kept({.temperature = 1.4, .top_p = 0.7}, kTopPLogits);
  ASSERT_EQ(both.size(), 2u);
  // The kept logits are -0.85714293 and -0.36428571.
  EXPECT_NEAR(both.at(0) / both.at(3), std::exp(-0.85714293 + 0.36428571), 1e-6);
}

TEST(Sampler, GreedyOfT5X) {
  const SamplingOptions greedy;
  EXPECT_EQ(choose_token(greedy, std::vector<float>{1700.47f, 1700.48f, 1700.51f, 1700.45f}, 0, 0), 2);
  EXPECT_EQ(choose_token(greedy, std::vector<float>{3.2f, 4.8f, -5.3f, 5.6f}, 0, 0), 3);
  EXPECT_EQ(choose_token(greedy, std::vector<float>{1, 7, 7, 7}, 0, 0), 1) << "the first of equals";
  EXPECT_EQ(choose_token(greedy, std::vector<float>{-kInfinity, -kInfinity}, 0, 0), -1);
}

TEST(Sampler, TemperaturesWithTopPOfT5X) {
  // T5X's per-row temperatures with p 0.63: at 0.5, 0, 0.3 and 0.2 only the favoured token is left.
  for (const double temperature : {0.5, 0.0, 0.3, 0.2})
    for (uint64_t position = 0; position < 50; ++position)
      EXPECT_EQ(choose_token({.temperature = temperature, .top_p = 0.63}, kTopPLogits, 0, position), 3) << temperature;
}

// Definitions, over random distributions of several sizes.
TEST(Sampler, FiltersKeepWhatTheirDefinitionsSay) {
  for (uint32_t seed = 0; seed < 20; ++seed)
    for (const size_t size : {1ul, 5ul, 300ul, 5000ul}) {
      const auto logits = random_logits(size, seed);
      const double temperature = 0.5 + 0.1 * seed;
      const auto probabilities = softmax(logits, temperature);
      std::vector<size_t> order(size);
      for (size_t n = 0; n < size; ++n) order[n] = n;
      std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });

      const auto top_k = kept({.temperature = temperature, .top_k = 40}, logits);
      EXPECT_EQ(top_k.size(), std::min<size_t>(40, size));
      for (const auto& [id, probability] : top_k)
        EXPECT_GE(logits[static_cast<size_t>(id)], logits[order[std::min<size_t>(39, size - 1)]]);

      const double p = 0.2 + 0.04 * seed;
      std::set<int32_t> expected;
      double mass = 0;
      for (const size_t id : order) {
        if (!expected.empty() && mass >= p) break;
        expected.insert(static_cast<int32_t>(id));
        mass += probabilities[id];
      }
      const auto top_p = kept({.temperature = temperature, .top_p = p}, logits);
      ASSERT_EQ(top_p.size(), expected.size()) << "size " << size << ", p " << p;
      double sum = 0;
      for (const auto& [id, probability] : top_p) {
        EXPECT_TRUE(expected.contains(id));
        EXPECT_NEAR(probability, probabilities[static_cast<size_t>(id)] / mass, 1e-6);
        sum += probability;
      }
      EXPECT_NEAR(sum, 1.0, 1e-12);

      double entropy = 0;
      for (const double probability : probabilities)
        entropy -= probability > 0 ? probability * std::log(probability) : 0;
      std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        return std::abs(-std::log(probabilities[a]) - entropy) < std::abs(-std::log(probabilities[b]) - entropy);
      });
      size_t typical_count = 0;
      for (double typical_mass = 0; typical_count < size && (typical_count == 0 || typical_mass < p); ++typical_count)
        typical_mass += probabilities[order[typical_count]];
      const auto typical = kept({.temperature = temperature, .typical_p = p}, logits);
      ASSERT_EQ(typical.size(), typical_count) << "size " << size << ", p " << p;
      for (size_t n = 0; n < typical_count; ++n) EXPECT_TRUE(typical.contains(static_cast<int32_t>(order[n])));
    }
}

TEST(Sampler, TopKKeepsTies) {
  EXPECT_EQ(kept({.temperature = 1.0, .top_k = 2}, {1, 5, 3, 3, 0}).size(), 3u);  // as HF: equal to the k-th stays
}

TEST(Sampler, TopPIsTakenOfWhatTopKLeft) {
  // Of .5 .2 .2 .1, top-k 1 leaves one token; top-p then sees probability 1.
  const std::vector<float> logits = {std::log(0.5f), std::log(0.25f), std::log(0.15f), std::log(0.1f)};
  EXPECT_EQ(kept({.temperature = 1.0, .top_k = 2, .top_p = 0.7}, logits).size(), 2u);
  // .5 / .75 = .667 < .7, so both stay; without top-k .5 + .25 >= .7 too. At p .6 the renormalised .667 is enough.
  EXPECT_EQ(kept({.temperature = 1.0, .top_k = 2, .top_p = 0.6}, logits).size(), 1u);
  EXPECT_EQ(kept({.temperature = 1.0, .top_p = 0.6}, logits).size(), 2u);
}

TEST(Sampler, FrequenciesFollowTheProbabilities) {
  const auto logits = random_logits(30, 3);
  for (const SamplingOptions& options :
       {SamplingOptions{.temperature = 1.0, .seed = 1}, SamplingOptions{.temperature = 0.7, .seed = 2},
        SamplingOptions{.temperature = 1.5, .top_k = 10, .seed = 3},
        SamplingOptions{.temperature = 1.0, .top_p = 0.9, .seed = 4}}) {
    const auto expected = kept(options, logits);
    std::map<int32_t, int> counts;
    constexpr int kDraws = 40000;
    for (int draw = 0; draw < kDraws; ++draw)
      ++counts[choose_token(options, logits, static_cast<uint64_t>(draw % 200), static_cast<uint64_t>(draw / 200))];
    double chi_square = 0;
    size_t cells = 0;
    for (const auto& [id, probability] : expected) {
      const double mean = probability * kDraws;
      if (mean < 5) continue;
      chi_square += (counts[id] - mean) * (counts[id] - mean) / mean;
      ++cells;
    }
    for (const auto& [id, count] : counts) EXPECT_TRUE(expected.contains(id)) << id << " was filtered out";
    ASSERT_GE(cells, 3u);
    // Mean cells - 1, standard deviation sqrt(2 (cells - 1)): five of them.
    const double freedom = static_cast<double>(cells - 1);
    EXPECT_LT(chi_square, freedom + 5 * std::sqrt(2 * freedom));
  }
}

TEST(Sampler, DrawsDependOnSeedPromptAndPositionOnly) {
  const auto logits = random_logits(1000, 5);
  const auto draw = [&](uint64_t seed, uint64_t prompt, uint64_t position) {
    return choose_token({.temperature = 2.0, .seed = seed}, logits, prompt, position);
  };
  std::set<std::vector<int32_t>> sequences;
  for (uint64_t seed = 0; seed < 3; ++seed)
    for (uint64_t prompt = 0; prompt < 3; ++prompt) {
      std::vector<int32_t> sequence;
      for (uint64_t position = 0; position < 8; ++position) {
        sequence.push_back(draw(seed, prompt, position));
        EXPECT_EQ(sequence.back(), draw(seed, prompt, position));
      }
      sequences.insert(sequence);
    }
  EXPECT_EQ(sequences.size(), 9u) << "two streams are equal";
}

TEST(TokenRules, RepetitionPenaltyDividesPositiveAndMultipliesNegativeScoresOnce) {
  std::vector<float> scores = {1, -1, 4, -4, 2};
  apply_rules({.repetition_penalty = 2.0}, std::vector<int32_t>{0, 2, 3, 2, 2}, 4, 1, scores);
  EXPECT_EQ(scores, (std::vector<float>{0.5f, -1, 2, -8, 2}));
}

TEST(TokenRules, NoNgramOccursTwice) {
  std::vector<float> scores(6, 0.0f);
  apply_rules({.no_repeat_ngram_size = 2}, std::vector<int32_t>{0, 2, 3, 2, 4, 2}, 5, 1, scores);
  EXPECT_EQ(scores, (std::vector<float>{0, 0, 0, -kInfinity, -kInfinity, 0})) << "2 was followed by 3 and by 4";
  scores.assign(6, 0.0f);
  apply_rules({.no_repeat_ngram_size = 3}, std::vector<int32_t>{0, 2, 3, 5, 2, 3}, 5, 1, scores);
  EXPECT_EQ(scores, (std::vector<float>{0, 0, 0, 0, 0, -kInfinity}));
  scores.assign(6, 0.0f);
  apply_rules({.no_repeat_ngram_size = 1}, std::vector<int32_t>{0, 2}, 1, 1, scores);
  EXPECT_EQ(scores, (std::vector<float>{-kInfinity, 0, -kInfinity, 0, 0, 0}));
  scores.assign(6, 0.0f);
  apply_rules({.no_repeat_ngram_size = 4}, std::vector<int32_t>{0, 2}, 1, 1, scores);
  EXPECT_EQ(scores, std::vector<float>(6, 0.0f)) << "too short to repeat anything";
}

TEST(TokenRules, BadWordsAndMinTokens) {
  std::vector<float> scores(6, 0.0f);
  const TokenRules rules{.min_tokens = 3, .bad_words = {{4}, {2, 3}, {5, 5, 0}, {1}}};
  apply_rules(rules, std::vector<int32_t>{0, 5, 2}, 2, 1, scores);
  EXPECT_EQ(scores, (std::vector<float>{0, -kInfinity, 0, -kInfinity, -kInfinity, 0}));
  scores.assign(6, 0.0f);
  apply_rules(rules, std::vector<int32_t>{0, 5, 5}, 3, 1, scores);
  EXPECT_EQ(scores, (std::vector<float>{-kInfinity, 0, 0, 0, -kInfinity, 0}))
      << "EOS is free from token 3 on, bad word or not";
}

TEST(SamplingOptions, OutOfRangeIsAnError) {
  EXPECT_THROW(validate(SamplingOptions{.temperature = -1}), Error);
  EXPECT_THROW(validate(SamplingOptions{.temperature = std::nan("")}), Error);
  EXPECT_THROW(validate(SamplingOptions{.top_k = -1}), Error);
  EXPECT_THROW(validate(SamplingOptions{.top_p = 0}), Error);
  EXPECT_THROW(validate(SamplingOptions{.top_p = 1.1}), Error);
  EXPECT_THROW(validate(SamplingOptions{.typical_p = 0}), Error);
  EXPECT_THROW(validate(TokenRules{.repetition_penalty = 0}), Error);
  EXPECT_THROW(validate(TokenRules{.no_repeat_ngram_size = -1}), Error);
  EXPECT_THROW(validate(TokenRules{.bad_words = {{}}}), Error);
  EXPECT_NO_THROW(validate(SamplingOptions{.temperature = 0.7, .top_k = 5, .top_p = 1.0}));
}

}  // namespace
}  // namespace switchyard
