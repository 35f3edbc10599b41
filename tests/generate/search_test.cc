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
  return StubModel(2, [](size_t prompt, const Ids&) { return favour(prompt == 0 ? 2 : 3); });
}

TEST(Sample, WithoutPrefixOfT5X) {
  for (const double temperature : {0.0, 1.0}) {
    auto model = two_or_three();
    const auto results = sample(model, Prefixes{{}, {}}, {.max_tokens = 3, .sampling = {.temperature = temperature}});
    EXPECT_EQ(outputs(results), (std::vector<Ids>{{2, 2, 2}, {3, 3, 3}}));
    EXPECT_NEAR(results[0][0].score, 0.0, 1e-6);
  }
}

TEST(Sample, PrefixesOfDifferentLengthOfT5X) {
  auto model = two_or_three();
  // Four steps from prefixes of one and two tokens.
  EXPECT_EQ(outputs(sample(model, Prefixes{{2}, {2, 2}}, {.max_tokens = 4})),
            (std::vector<Ids>{{2, 2, 2, 2, 2}, {2, 2, 3, 3, 3, 3}}));
}

TEST(Sample, AnEosInThePrefixDoesNotEndItOfT5X) {
  auto model = two_or_three();
  EXPECT_EQ(outputs(sample(model, Prefixes{{5, 6, 1}, {8, 1}}, {.max_tokens = 3})),
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
  StubModel model(2, logits);
  const auto results = sample(model, Prefixes{{5, 1}, {8}}, {.max_tokens = 10});
  EXPECT_EQ(outputs(results), (std::vector<Ids>{{5, 1, 2, 2, 1}, {8, 3, 3, 1}}));
  const double log_probability = 3.0 - std::log(std::exp(3.0) + 9.0);
  for (const auto& result : results) EXPECT_NEAR(result[0].score, 3 * log_probability, 1e-5);
  EXPECT_EQ(model.rows_advanced, 5u + 4u) << "a row that ended is not computed any more";
}

TEST(Sample, ScoreIsOfTheModelsOwnDistributionOfT5X) {
  // p(2) = 0.6, p(3) = 0.4: prefix 2 2 3, then 2 2 by top-k 1: 2 ln 0.6 = -1.02165125, whatever the filters do.
  StubModel model(1, [](size_t, const Ids&) { return std::vector<float>{-1e7f, -1e7f, -0.510825624f, -0.916290732f}; });
  const auto results =
      sample(model, Prefixes{{2, 2, 3}}, {.max_tokens = 2, .sampling = {.temperature = 0.5, .top_k = 1}});
  EXPECT_EQ(outputs(results), (std::vector<Ids>{{2, 2, 3, 2, 2}}));
  EXPECT_NEAR(results[0][0].score, -1.02165125, 1e-6);
}

TEST(Sample, MinTokensRulesAndStops) {
  const auto logits = [](size_t, const Ids&) { return std::vector<float>{0, 5, 3, 1}; };
  StubModel min_model(1, logits);
  const auto results = sample(min_model, Prefixes{{3}}, {.max_tokens = 8, .rules = {.min_tokens = 2}});
  EXPECT_EQ(outputs(results), (std::vector<Ids>{{3, 2, 2, 1}}));
  const double log_sum = std::log(1 + std::exp(5.0) + std::exp(3.0) + std::exp(1.0));
  EXPECT_NEAR(results[0][0].score, 3 + 3 + 5 - 3 * log_sum, 1e-4) << "scores are the model's own, before rules";

  StubModel penalty_model(1, logits);  // 2 is chosen over the weakened EOS of the prefix
  const auto penalized = sample(penalty_model, Prefixes{{1}}, {.max_tokens = 2, .rules = {.repetition_penalty = 2.0}});
  EXPECT_EQ(outputs(penalized), (std::vector<Ids>{{1, 2, 1}})) << "5 / 2 < 3, then 5 / 2 > 3 / 2";
  EXPECT_NEAR(penalized[0][0].score, 3 + 5 - 2 * log_sum, 1e-4);

  StubModel stop_model(1, logits);
  SearchOptions options{.max_tokens = 8, .rules = {.min_tokens = 8}};
  options.stops = [](std::span<const int32_t> ids) { return ids.size() == 3; };
  EXPECT_EQ(outputs(sample(stop_model, Prefixes{{3}}, options)), (std::vector<Ids>{{3, 2, 2}}));

  StubModel ngram_model(1, logits);
  EXPECT_EQ(outputs(sample(ngram_model, Prefixes{{}},
                           {.max_tokens = 8, .rules = {.no_repeat_ngram_size = 1, .min_tokens = 8}})),
            (std::vector<Ids>{{2, 3, 1}}))
      << "when the rules leave nothing, the output ends";
}

TEST(Sample, TellsEachTokenAsItComes) {
  auto model = two_or_three();
  std::vector<std::pair<size_t, int32_t>> told;
  SearchOptions options{.max_tokens = 2};
  options.on_token = [&](size_t prompt, int32_t id) { told.emplace_back(prompt, id); };
  sample(model, Prefixes{{}, {7}}, options);
  EXPECT_EQ(told, (std::vector<std::pair<size_t, int32_t>>{{0, 2}, {0, 2}, {1, 3}, {1, 3}}))
      << "the prefix is not told";
}

TEST(Sample, ASampleDependsOnItsPromptsNumberNotOnItsCompanions) {
  const auto logits = [](size_t, const Ids&) { return std::vector<float>(50, 0.0f); };
  const auto run = [&](size_t num_prompts, uint64_t first, uint64_t seed) {
    StubModel model(num_prompts, logits);
    return outputs(sample(model, Prefixes(num_prompts),
                          {.max_tokens = 20, .sampling = {.temperature = 1.0, .seed = seed}, .first_prompt = first}));
  };
  const auto all = run(4, 0, 7);
  for (size_t prompt = 0; prompt < 4; ++prompt) EXPECT_EQ(run(1, prompt, 7)[0], all[prompt]);
  EXPECT_NE(all[0], all[1]);
  EXPECT_NE(run(4, 0, 8), all);
  EXPECT_EQ(run(4, 0, 7), all);
}

TEST(Sample, LogitsThatAreNotFiniteAreAnError) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    StubModel model(1, [bad](size_t, const Ids&) { return std::vector<float>{0, 1, bad, 0}; });
    EXPECT_THROW(sample(model, Prefixes{{}}, {.max_tokens = 2}), Error);
    StubModel beams(1, [bad](size_t, const Ids&) { return std::vector<float>{0, 1, bad, 0}; });
    EXPECT_THROW(beam_search(beams, Prefixes{{}}, {.max_tokens = 2, .beams = {.num_beams = 2}}), Error);
  }
}

TEST(SearchOptions, OutOfRangeIsAnError) {
  EXPECT_THROW(validate(SearchOptions{.max_tokens = 0}), Error);
  EXPECT_THROW(validate(SearchOptions{.max_tokens = 2, .rules = {.min_tokens = 3}}), Error);
  EXPECT_THROW(validate(SearchOptions{.beams = {.num_beams = 0}}), Error);
  EXPECT_THROW(validate(SearchOptions{.beams = {.num_beams = 2, .num_results = 3}}), Error);
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
