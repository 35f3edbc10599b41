// Greedy decoding and sampling over a stub model: T5X's fixtures (decoding_test.py), ends, prefixes, rules, scores.
#include "generate/search.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "stub_model.h"

namespace switchyard {
namespace {

using Ids = std::vector<int32_t>;
using Prefixes = std::vector<Ids>;

std::vector<float> favour(int32_t id, size_t vocab_size = 10) {
  std::vector<float> logits(vocab_size, -1e7f);
  logits[static_cast<size_t>(id)] = 0;
  return logits;
}

std::vector<Ids> outputs(const std::vector<Hypotheses>& results) {
  std::vector<Ids> ids;
  for (const auto& result : results) ids.push_back(result.at(0).ids);
  return ids;
}

StubModel two_or_three() {
  return StubModel([](size_t prompt, const Ids&) { return favour(prompt == 0 ? 2 : 3); });
}

TEST(Sample, WithoutPrefixOfT5X) {
  for (const double temperature : {0.0, 1.0}) {
    auto model = two_or_three();
    const auto results = search(model, Prefixes{{}, {}}, {.max_tokens = 3, .sampling = {.temperature = temperature}});
    EXPECT_EQ(outputs(results), (std::vector<Ids>{{2, 2, 2}, {3, 3, 3}}));
    EXPECT_NEAR(results[0][0].score, 0.0, 1e-6);
  }
}

TEST(Sample, PrefixesOfDifferentLengthOfT5X) {
  auto model = two_or_three();
  // Four steps from prefixes of one and two tokens.
  EXPECT_EQ(outputs(search(model, Prefixes{{2}, {2, 2}}, {.max_tokens = 4})),
            (std::vector<Ids>{{2, 2, 2, 2, 2}, {2, 2, 3, 3, 3, 3}}));
}

TEST(Sample, AnEosInThePrefixDoesNotEndItOfT5X) {
  auto model = two_or_three();
  EXPECT_EQ(outputs(search(model, Prefixes{{5, 6, 1}, {8, 1}}, {.max_tokens = 3})),
            (std::vector<Ids>{{5, 6, 1, 2, 2, 2}, {8, 1, 3, 3, 3}}));
}

TEST(Sample, RowsThatEndAtDifferentStepsOfT5X) {
  // Row 0 draws 2 2 EOS after its prefix 5 1, row 1 draws 3 3 EOS after 8; scores count sampled tokens only.
  const auto logits = [](size_t prompt, const Ids& history) {
    const size_t prefix = prompt == 0 ? 2 : 1;
    const int32_t id = history.size() == prefix + 3 ? 1 : prompt == 0 ? 2 : 3;
    auto row = std::vector<float>(10, 0.0f);
    row[static_cast<size_t>(id)] = 3.0f;
    return row;
  };
  StubModel model(logits);
  const auto results = search(model, Prefixes{{5, 1}, {8}}, {.max_tokens = 10});
  EXPECT_EQ(outputs(results), (std::vector<Ids>{{5, 1, 2, 2, 1}, {8, 3, 3, 1}}));
  const double log_probability = 3.0 - std::log(std::exp(3.0) + 9.0);
  for (const auto& result : results) EXPECT_NEAR(result[0].score, 3 * log_probability, 1e-5);
  EXPECT_EQ(model.rows_advanced, 3u + 3u) << "a row that ended is not computed any more";
}

TEST(Sample, ScoreIsOfTheModelsOwnDistributionOfT5X) {
  // p(2) = 0.6, p(3) = 0.4: prefix 2 2 3, then 2 2 by top-k 1: 2 ln 0.6 = -1.02165125, whatever the filters do.
  StubModel model([](size_t, const Ids&) { return std::vector<float>{-1e7f, -1e7f, -0.510825624f, -0.916290732f}; });
  const auto results =
      search(model, Prefixes{{2, 2, 3}}, {.max_tokens = 2, .sampling = {.temperature = 0.5, .top_k = 1}});
  EXPECT_EQ(outputs(results), (std::vector<Ids>{{2, 2, 3, 2, 2}}));
  EXPECT_NEAR(results[0][0].score, -1.02165125, 1e-6);
}

TEST(Sample, MinTokensRulesAndStops) {
  const auto logits = [](size_t, const Ids&) { return std::vector<float>{0, 5, 3, 1}; };
  StubModel min_model(logits);
  const auto results = search(min_model, Prefixes{{3}}, {.max_tokens = 8, .rules = {.min_tokens = 2}});
  EXPECT_EQ(outputs(results), (std::vector<Ids>{{3, 2, 2, 1}}));
  const double log_sum = std::log(1 + std::exp(5.0) + std::exp(3.0) + std::exp(1.0));
  EXPECT_NEAR(results[0][0].score, 3 + 3 + 5 - 3 * log_sum, 1e-4) << "scores are the model's own, before rules";

  StubModel penalty_model(logits);  // 2 is chosen over the weakened EOS of the prefix
  const auto penalized = search(penalty_model, Prefixes{{1}}, {.max_tokens = 2, .rules = {.repetition_penalty = 2.0}});
  EXPECT_EQ(outputs(penalized), (std::vector<Ids>{{1, 2, 1}})) << "5 / 2 < 3, then 5 / 2 > 3 / 2";
  EXPECT_NEAR(penalized[0][0].score, 3 + 5 - 2 * log_sum, 1e-4);

  StubModel stop_model(logits);
  SearchOptions options{.max_tokens = 8, .rules = {.min_tokens = 8}};
  const auto hooks = [](size_t) {
    return SearchHooks{.stops = [](std::span<const int32_t> ids) { return ids.size() == 3; }};
  };
  EXPECT_EQ(outputs(search(stop_model, Prefixes{{3}}, options, hooks)), (std::vector<Ids>{{3, 2, 2}}));

  StubModel ngram_model(logits);
  EXPECT_EQ(outputs(search(ngram_model, Prefixes{{}},
                           {.max_tokens = 8, .rules = {.no_repeat_ngram_size = 1, .min_tokens = 8}})),
            (std::vector<Ids>{{2, 3, 1}}))
      << "when the rules leave nothing, the output ends";
}

TEST(Sample, TellsEachTokenAsItComes) {
  auto model = two_or_three();
  std::vector<std::pair<size_t, int32_t>> told;
  const auto hooks = [&](size_t prompt) {
    return SearchHooks{.on_token = [&told, prompt](size_t, int32_t id) { told.emplace_back(prompt, id); }};
  };
  search(model, Prefixes{{}, {7}}, {.max_tokens = 2}, hooks);
  EXPECT_EQ(told, (std::vector<std::pair<size_t, int32_t>>{{0, 2}, {0, 2}, {1, 3}, {1, 3}}))
      << "the prefix is not told";
}

// Samples part at the first token, each with noise of its own; the first is what one sample alone would be.
TEST(Sample, SeveralSamplesOfOnePrompt) {
  const auto logits = [](size_t, const Ids& history) {
    auto row = std::vector<float>(50, 0.0f);
    row[1] = -1e7f;
    row[static_cast<size_t>(history.back())] = 2.0f;  // so that a sample's own history matters
    return row;
  };
  StubModel model(logits);
  SearchOptions options{.max_tokens = 12, .num_results = 4, .sampling = {.temperature = 1.0, .seed = 3}};
  std::vector<Ids> told(4);
  const auto four = search(model, Prefixes{{9, 8}}, options, [&](size_t) {
    return SearchHooks{.on_token = [&told](size_t sample, int32_t id) { told.at(sample).push_back(id); }};
  })[0];
  ASSERT_EQ(four.size(), 4u);
  EXPECT_EQ(model.rows_advanced, 1u + 11 * 4);
  for (size_t sample = 0; sample < 4; ++sample) {
    EXPECT_EQ((Ids{four[sample].ids.begin() + 2, four[sample].ids.end()}), told[sample]);
    for (size_t other = 0; other < sample; ++other) EXPECT_NE(four[sample].ids, four[other].ids);
  }
  options.num_results = 1;
  const auto one = search(model, Prefixes{{9, 8}}, options)[0];
  EXPECT_EQ(one[0].ids, four[0].ids);
  EXPECT_EQ(one[0].score, four[0].score);
}

TEST(Sample, ASampleDependsOnItsPromptsNumberNotOnItsCompanions) {
  const auto logits = [](size_t, const Ids&) { return std::vector<float>(50, 0.0f); };
  const auto run = [&](size_t num_prompts, uint64_t first, uint64_t seed) {
    StubModel model(logits);
    return outputs(search(model, Prefixes(num_prompts),
                          {.max_tokens = 20, .sampling = {.temperature = 1.0, .seed = seed}, .number = first}));
  };
  const auto all = run(4, 0, 7);
  for (size_t prompt = 0; prompt < 4; ++prompt) EXPECT_EQ(run(1, prompt, 7)[0], all[prompt]);
  EXPECT_NE(all[0], all[1]);
  EXPECT_NE(run(4, 0, 8), all);
  EXPECT_EQ(run(4, 0, 7), all);
}

TEST(Sample, LogitsThatAreNotFiniteAreAnError) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    StubModel model([bad](size_t, const Ids&) { return std::vector<float>{0, 1, bad, 0}; });
    EXPECT_THROW(search(model, Prefixes{{}}, {.max_tokens = 2}), Error);
    StubModel beams([bad](size_t, const Ids&) { return std::vector<float>{0, 1, bad, 0}; });
    EXPECT_THROW(search(beams, Prefixes{{}}, {.max_tokens = 2, .beams = {.num_beams = 2}}), Error);
  }
}

TEST(SearchOptions, OutOfRangeIsAnError) {
  EXPECT_THROW(validate(SearchOptions{.max_tokens = 0}), Error);
  EXPECT_THROW(validate(SearchOptions{.max_tokens = 2, .rules = {.min_tokens = 3}}), Error);
  EXPECT_THROW(validate(SearchOptions{.beams = {.num_beams = 0}}), Error);
  EXPECT_THROW(validate(SearchOptions{.num_results = 3, .beams = {.num_beams = 2}}), Error);
  EXPECT_THROW(validate(SearchOptions{.num_results = 2}), Error) << "greedy decoding has one output";
  EXPECT_NO_THROW(validate(SearchOptions{.num_results = 2, .sampling = {.temperature = 1}}));
  EXPECT_THROW(validate(SearchOptions{.sampling = {.temperature = 1}, .beams = {.num_beams = 2}}), Error);
}

TEST(SearchOptions, RefusesLengthsThatOverflow) {
  SearchOptions options;
  options.max_tokens = int64_t{1} << 32;
  EXPECT_NO_THROW(validate(options));
  options.max_tokens = std::numeric_limits<int64_t>::max();
  EXPECT_THROW(validate(options), Error);
}

}  // namespace
}  // namespace switchyard
