#include "data/span_corruption.h"

#include <gmock/gmock.h>

#include <map>
#include <numeric>
#include <set>

#include "text/scratch.h"
#include "text/vocabulary.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<int32_t>;

NoiseStream stream(uint64_t example, uint64_t seed = 0) {
  return NoiseStream({seed, NoisePurpose::kSpanCorruption}, example);
}

std::vector<bool> mask_of(const std::string& text) {
  std::vector<bool> mask;
  for (const char digit : text) {
    if (digit != ' ') mask.push_back(digit == '1');
  }
  return mask;
}

int64_t count_spans(const std::vector<bool>& mask) {
  int64_t spans = 0;
  for (size_t at = 0; at < mask.size(); ++at) spans += mask[at] && (at == 0 || !mask[at - 1]);
  return spans;
}

// T5's test of random_spans_helper, and the lengths of its published tasks.
TEST(SpanCorruption, LengthsEqualT5) {
  const auto lengths = [](int64_t inputs, double density, double mean) {
    const auto result = span_corruption_lengths(inputs, {density, mean});
    return std::pair(result.tokens_length, result.targets_length);
  };
  EXPECT_EQ(lengths(64, 0.2, 2.0), std::pair(int64_t{70}, int64_t{22}));
  EXPECT_EQ(lengths(64, 0.2, 1.0), std::pair(int64_t{63}, int64_t{27}));
  EXPECT_EQ(lengths(128, 0.15, 3), std::pair(int64_t{141}, int64_t{29}));
  EXPECT_EQ(lengths(256, 0.15, 3), std::pair(int64_t{284}, int64_t{58}));
  EXPECT_EQ(lengths(512, 0.15, 3), std::pair(int64_t{568}, int64_t{114}));
  EXPECT_EQ(lengths(1024, 0.15, 3), std::pair(int64_t{1137}, int64_t{229}));
  EXPECT_EQ(lengths(2048, 0.15, 3), std::pair(int64_t{2274}, int64_t{456}));
  // Half of the tokens noise: 63 raw tokens have 32 noise tokens (31.5 to even), 32 spans of 1: inputs 64, targets 65
  // > 64.
  EXPECT_EQ(lengths(64, 0.5, 1.0), std::pair(int64_t{62}, int64_t{64}));
  EXPECT_THAT(error_of([&] { lengths(512, 1.0, 3); }), HasSubstr("noise_density 1"));
  EXPECT_THAT(error_of([&] { lengths(512, 0.15, 0.5); }), HasSubstr("mean_noise_span_length 0.5"));
  EXPECT_THAT(error_of([&] { lengths(0, 0.15, 3); }), HasSubstr("inputs_length 0"));
}

TEST(SpanCorruption, CountsRoundHalfToEven) {
  EXPECT_EQ(noise_counts(568, {}).num_noise_tokens, 85);
  EXPECT_EQ(noise_counts(568, {}).num_noise_spans, 28);
  EXPECT_EQ(noise_counts(10, {0.25, 3}).num_noise_tokens, 2);  // 2.5
  EXPECT_EQ(noise_counts(14, {0.25, 3}).num_noise_tokens, 4);  // 3.5
  EXPECT_EQ(noise_counts(20, {0.25, 2}).num_noise_spans, 2);   // 5 / 2
  EXPECT_EQ(noise_counts(28, {0.25, 2}).num_noise_spans, 4);   // 7 / 2
  EXPECT_EQ(noise_counts(2, {}).num_noise_tokens, 1);          // at least one,
  EXPECT_EQ(noise_counts(3, {0.9, 3}).num_noise_tokens, 2);    // at most all but one
  EXPECT_EQ(noise_counts(5, {}).num_noise_spans, 1);
  EXPECT_EQ(noise_counts(100, {0, 3}).num_noise_tokens, 0);
  EXPECT_THAT(error_of([] { noise_counts(1, {}); }), HasSubstr("at least 2"));
  EXPECT_THAT(error_of([] { noise_counts(100, {0.8, 1}); }), HasSubstr("too few tokens between"));
}

// T5's tests of noise_span_to_unique_sentinel and of denoise.
TEST(SpanCorruption, SentinelsEqualT5) {
  const Ids tokens = {10, 11, 12, 13, 14, 15};
  const auto mask = mask_of("110010");
  EXPECT_THAT(replace_spans(tokens, mask, true, 999), ElementsAre(999, 12, 13, 998, 15));
  EXPECT_THAT(replace_spans(tokens, mask, false, 999), ElementsAre(10, 11, 999, 14, 998));
  EXPECT_THROW(replace_spans(tokens, mask_of("11"), true, 999), Error);

  const Ids fox = {3, 2, 20, 4, 3, 2, 8, 13, 2, 3, 2, 23, 7, 19, 22, 3, 2, 7, 2};
  const auto fox_mask = mask_of("00000000 1 00000 11111");
  EXPECT_THAT(replace_spans(fox, fox_mask, true, 25), ElementsAre(3, 2, 20, 4, 3, 2, 8, 13, 25, 3, 2, 23, 7, 19, 24));
  EXPECT_THAT(replace_spans(fox, fox_mask, false, 25), ElementsAre(25, 2, 24, 22, 3, 2, 7, 2));

  auto noise = stream(0);
  const auto unchanged =
      corrupt_spans(fox, {.noise_density = 0}, {.eos_id = 1, .first_sentinel_id = 25, .num_sentinels = 1}, noise);
  Ids with_end = fox;
  with_end.push_back(1);
  EXPECT_EQ(unchanged.inputs, with_end);
  EXPECT_THAT(unchanged.targets, ElementsAre(25, 1));
}

TEST(SpanCorruption, TokenisedExampleEqualsT5) {
  SKIP_WITHOUT_DATA();
  const auto vocabulary = Vocabulary::load(data_folder() / "testvectors/sentencepiece/seqio_test.model", 0);
  EXPECT_THAT(vocabulary.encode("The quick brown fox."),
              ElementsAre(3, 2, 20, 4, 3, 2, 8, 13, 2, 3, 2, 23, 7, 19, 22, 3, 2, 7, 2));
}

// T5's tests of random_spans_noise_mask.
TEST(SpanCorruption, MasksHaveT5sShape) {
  const SpanCorruption quarter{0.25, 2.0};
  const auto published = mask_of("00000011 10111000 00000000 00001001");
  ASSERT_EQ(std::count(published.begin(), published.end(), true), 8);
  ASSERT_EQ(count_spans(published), 4);
  for (uint64_t example = 0; example < 500; ++example) {
    auto noise = stream(example);
    const auto mask = random_spans_noise_mask(32, quarter, noise);
    ASSERT_EQ(mask.size(), 32u);
    ASSERT_EQ(std::count(mask.begin(), mask.end(), true), 8);
    ASSERT_EQ(count_spans(mask), 4);
    ASSERT_FALSE(mask.front());
    ASSERT_TRUE(mask.back());
  }
  double density = 0;
  for (uint64_t example = 0; example < 50; ++example) {
    const int64_t length = 16 + static_cast<int64_t>(example % 3);
    auto noise = stream(example);
    const auto mask = random_spans_noise_mask(length, {}, noise);
    density += static_cast<double>(std::count(mask.begin(), mask.end(), true)) / static_cast<double>(length) / 50;
  }
  EXPECT_NEAR(density, 0.15, 0.01);
}

double chi_square(const std::map<std::string, int>& counts, size_t num_outcomes, int num_draws) {
  const double expected = static_cast<double>(num_draws) / static_cast<double>(num_outcomes);
  double sum = expected * static_cast<double>(num_outcomes - counts.size());  // outcomes that never came
  for (const auto& [outcome, count] : counts) sum += (count - expected) * (count - expected) / expected;
  return sum;
}

TEST(SpanCorruption, EveryPartitionIsEquallyLikely) {
  constexpr int kDraws = 21'000;
  std::map<std::string, int> counts;
  for (int draw = 0; draw < kDraws; ++draw) {
    auto noise = stream(static_cast<uint64_t>(draw));
    const auto parts = random_partition(8, 3, noise);
    ASSERT_EQ(std::accumulate(parts.begin(), parts.end(), int64_t{0}), 8);
    std::string outcome;
    for (const int64_t part : parts) {
      ASSERT_GE(part, 1);
      outcome += std::to_string(part);
    }
    ASSERT_EQ(outcome.size(), 3u);
    ++counts[outcome];
  }
  EXPECT_EQ(counts.size(), 21u);                    // 7 choose 2
  EXPECT_LT(chi_square(counts, 21, kDraws), 52.0);  // 20 degrees of freedom: exceeded once in 10,000
}

TEST(SpanCorruption, EveryMaskIsEquallyLikely) {
  // 6 noise tokens and 8 others in 2 spans each: 5 x 7 masks, so both partitions and their independence are in it.
  constexpr int kDraws = 35'000;
  std::map<std::string, int> counts;
  for (int draw = 0; draw < kDraws; ++draw) {
    auto noise = stream(static_cast<uint64_t>(draw), 7);
    std::string outcome;
    for (const bool is_noise : random_spans_noise_mask(14, {0.42, 3.0}, noise)) outcome += is_noise ? '1' : '0';
    ++counts[outcome];
  }
  EXPECT_EQ(counts.size(), 35u);
  EXPECT_LT(chi_square(counts, 35, kDraws), 73.0);  // 34 degrees of freedom: exceeded once in 10,000
}

TEST(SpanCorruption, PartitionsAtTheEdges) {
  auto noise = stream(0);
  EXPECT_THAT(random_partition(5, 1, noise), ElementsAre(5));
  EXPECT_THAT(random_partition(4, 4, noise), ElementsAre(1, 1, 1, 1));
  EXPECT_THAT(random_partition(1, 1, noise), ElementsAre(1));
  EXPECT_THROW(random_partition(3, 4, noise), Error);
  EXPECT_THROW(random_partition(3, 0, noise), Error);
}

// Inputs and targets together hold the text, whatever the length: put every span back behind its sentinel.
TEST(SpanCorruption, InputsAndTargetsTogetherGiveTheText) {
  constexpr int32_t kFirstSentinel = 100'000;
  const SpecialTokens special{.eos_id = 1, .first_sentinel_id = kFirstSentinel, .num_sentinels = 1000};
  for (int64_t length = 2; length < 700; length += 1 + length / 7) {
    Ids tokens(static_cast<size_t>(length));
    std::iota(tokens.begin(), tokens.end(), 10);
    for (uint64_t example = 0; example < 5; ++example) {
      auto noise = stream(example);
      auto [inputs, targets] = corrupt_spans(tokens, {}, special, noise);
      const auto counts = noise_counts(length, {});
      ASSERT_EQ(static_cast<int64_t>(inputs.size()), counts.inputs_length(length));
      ASSERT_EQ(static_cast<int64_t>(targets.size()), counts.targets_length());
      ASSERT_EQ(inputs.back(), 1);
      ASSERT_EQ(targets.back(), 1);
      ASSERT_EQ(targets.front(), kFirstSentinel);
      inputs.pop_back();
      targets.pop_back();
      Ids restored;
      int32_t sentinel = kFirstSentinel;
      size_t target = 0;
      for (const int32_t input : inputs) {
        if (input < kFirstSentinel - 1000) {
          restored.push_back(input);
          continue;
        }
        ASSERT_EQ(input, sentinel) << "sentinels count down from the first";
        ASSERT_EQ(targets[target++], sentinel--);
        while (target < targets.size() && targets[target] < kFirstSentinel - 1000)
          restored.push_back(targets[target++]);
      }
      ASSERT_EQ(restored, tokens);
      ASSERT_EQ(target, targets.size());
    }
  }
}

TEST(SpanCorruption, WantsT5sSpecialTokens) {
  SKIP_WITHOUT_DATA();
  const auto folder = data_folder() / "testvectors/sentencepiece";
  const auto special = special_tokens(Vocabulary::load(folder / "seqio_test.model"));
  EXPECT_EQ(special.eos_id, 1);
  EXPECT_EQ(special.first_sentinel_id, 125);
  EXPECT_EQ(special.num_sentinels, 100);
  EXPECT_THAT(error_of([&] { special_tokens(Vocabulary::load(folder / "spm_test_model.model")); }),
              HasSubstr("pad id is -1"));
  EXPECT_THAT(error_of([&] { special_tokens(Vocabulary::load(folder / "seqio_test.model", 0)); }),
              HasSubstr("no sentinels"));
}

}  // namespace
}  // namespace switchyard
