// Beam search over stub models: T5X's fixtures, exhaustive search as an oracle, stopping rules.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "generate/search.h"
#include "stub_model.h"

namespace switchyard {
namespace {

using Ids = std::vector<int32_t>;
using Prefixes = std::vector<Ids>;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A toy chain of T5X's decoding_test.py: states PAD A B START END, edge scores by time.
TEST(BeamSearch, MarkovChainOfT5X) {
  enum State : int32_t { kPad, kA, kB, kStart, kEnd };
  const auto logits = [](size_t, const Ids& history) {
    static constexpr float kEdges[4][2][2] = {
        {{1, -1}, {-1, 1}}, {{-1, 1}, {1, -1}}, {{1, -1}, {-1, 1}}, {{-1, 1}, {1, -1}}};
    const size_t time = history.size() - 1;
    std::vector<float> row(5, -kInfinity);
    if (time == 0) {
      row[kA] = row[kB] = 0;
    } else if (time <= 4) {
      const size_t from = history.back() == kA ? 0 : 1;
      row[kA] = kEdges[time - 1][from][0];
      row[kB] = kEdges[time - 1][from][1];
    } else {
      row[kEnd] = 0;
    }
    return row;
  };
  StubModel model(logits);
  const auto results = search(model, Prefixes{{}},
                              {.max_tokens = 7,
                               .num_results = 2,
                               .beams = {.num_beams = 2, .length_penalty = 0},
                               .start_id = kStart,
                               .eos_id = kEnd});
  ASSERT_EQ(results[0].size(), 2u);
  EXPECT_EQ(results[0][0].ids, (Ids{kA, kA, kB, kB, kA, kEnd}));
  EXPECT_EQ(results[0][1].ids, (Ids{kB, kB, kA, kA, kB, kEnd}));
  // First step ln 1/2, then four edges of log softmax(1, -1).
  const double score = std::log(0.5) + 4 * (1 - std::log(std::exp(1.0) + std::exp(-1.0)));
  for (const auto& hypothesis : results[0]) EXPECT_NEAR(hypothesis.score, score, 1e-6);
}

const std::vector<float> kTwo = {-1e7f, -1e10f, -0.1f, -0.9f, -1e4f, -1e4f, -1e4f, -1e4f};
const std::vector<float> kThree = {-1e7f, -1e10f, -0.9f, -0.1f, -1e4f, -1e4f, -1e4f, -1e4f};

StubModel prefix_model() {
  return StubModel([](size_t prompt, const Ids&) { return prompt == 0 ? kTwo : kThree; });
}

TEST(BeamSearch, ForcedPrefixesOfT5X) {
  const SearchOptions options{.max_tokens = 3, .num_results = 2, .beams = {.num_beams = 2, .length_penalty = 0}};
  auto model = prefix_model();
  const auto results = search(model, Prefixes{{7, 2}, {4, 5}}, options);
  EXPECT_EQ(results[1][0].ids, (Ids{4, 5, 3, 3, 3}));
  EXPECT_NEAR(results[1][0].score, -1.1133020, 1e-6);
  EXPECT_NEAR(results[1][1].score, -1.9133020, 1e-6);
  // The second best holds one 2; three places tie, and peers break the tie differently.
  EXPECT_EQ(std::count(results[1][1].ids.begin() + 2, results[1][1].ids.end(), 2), 1);

  auto longer = prefix_model();
  const auto four = search(longer, Prefixes{{7}, {}}, {.max_tokens = 4, .num_results = 2, .beams = options.beams});
  EXPECT_EQ(four[0][0].ids, (Ids{7, 2, 2, 2, 2}));
  EXPECT_NEAR(four[0][0].score, -1.4844027, 1e-6);
  EXPECT_NEAR(four[0][1].score, -2.2844027, 1e-6);
  EXPECT_EQ(std::count(four[0][1].ids.begin() + 1, four[0][1].ids.end(), 3), 1);
  EXPECT_EQ(four[1][0].ids, (Ids{3, 3, 3, 3}));
}

// A random tree: logits are a function of the prompt and the whole history.
std::vector<float> random_tree(size_t prompt, const Ids& history, size_t vocab_size, float eos_bonus) {
  std::seed_seq seed(history.begin(), history.end());
  std::mt19937 generator(seed);
  generator.discard(prompt * 100);
  std::normal_distribution<float> normal(0, 1.5);
  std::vector<float> logits(vocab_size);
  for (auto& logit : logits) logit = normal(generator);
  logits[0] = -kInfinity;
  logits[1] += eos_bonus;
  return logits;
}

void enumerate(size_t prompt, Ids& history, double score, const SearchOptions& options, size_t vocab_size,
               Hypotheses& all) {
  const auto logits = random_tree(prompt, history, vocab_size, 0.5f);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  for (size_t id = 1; id < vocab_size; ++id) {
    const double next = score + logits[id] - std::log(sum);
    history.push_back(static_cast<int32_t>(id));
    const auto length = static_cast<int64_t>(history.size()) - 1;
    if (id == 1 || length == options.max_tokens)
      all.push_back({{history.begin() + 1, history.end()},
                     next / std::pow(static_cast<double>(length), options.beams.length_penalty)});
    else
      enumerate(prompt, history, next, options, vocab_size, all);
    history.pop_back();
  }
}

// With as many beams as there are sequences nothing is pruned, so the search must find the best of all.
TEST(BeamSearch, FindsTheBestOfAllSequencesWhenNothingIsPruned) {
  constexpr size_t kVocabSize = 5;
  for (size_t prompt = 0; prompt < 6; ++prompt)
    for (const double length_penalty : {0.0, 1.0, -0.5, 2.0}) {
      SearchOptions options{
          .max_tokens = 4,
          .num_results = 10,
          .beams = {.num_beams = 300, .length_penalty = length_penalty, .early_stopping = EarlyStopping::kNever}};
      Hypotheses all;
      Ids history = {0};
      enumerate(prompt, history, 0.0, options, kVocabSize, all);
      std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.score > b.score; });
      ASSERT_LT(all.size(), 300u);
      StubModel model([&](size_t, const Ids& tokens) { return random_tree(prompt, tokens, kVocabSize, 0.5f); });
      const auto results = search(model, Prefixes{{}}, options);
      ASSERT_EQ(results[0].size(), 10u);
      for (size_t rank = 0; rank < 10; ++rank) {
        EXPECT_EQ(results[0][rank].ids, all[rank].ids) << "rank " << rank << ", length penalty " << length_penalty;
        EXPECT_NEAR(results[0][rank].score, all[rank].score, 1e-5);
      }
    }
}

// EOS is the second best from the start, so a finished sequence exists at once; a longer one turns out better.
TEST(BeamSearch, StoppingRulesDiffer) {
  const auto logits = [](size_t, const Ids& history) {
    if (history.size() == 1) return std::vector<float>{-kInfinity, std::log(0.3f), std::log(0.4f), std::log(0.3f)};
    if (history.size() < 5) return std::vector<float>{-kInfinity, std::log(0.4f), std::log(0.5f), std::log(0.1f)};
    return std::vector<float>{-kInfinity, std::log(0.999f), std::log(0.0005f), std::log(0.0005f)};
  };
  const auto run = [&](EarlyStopping early_stopping) {
    StubModel model(logits);
    const auto results =
        search(model, Prefixes{{}},
               {.max_tokens = 8, .beams = {.num_beams = 2, .length_penalty = 2.0, .early_stopping = early_stopping}});
    return std::pair(results[0][0].ids, model.rows_advanced);
  };
  const auto [always_ids, always_rows] = run(EarlyStopping::kAlways);
  const auto [heuristic_ids, heuristic_rows] = run(EarlyStopping::kHeuristic);
  const auto [never_ids, never_rows] = run(EarlyStopping::kNever);
  EXPECT_LT(always_rows, never_rows);
  EXPECT_LE(heuristic_rows, never_rows);
  EXPECT_EQ(never_ids, (Ids{2, 2, 2, 2, 1}));
  EXPECT_LT(always_ids.size(), never_ids.size());
}

// An EOS that ranks below the first num_beams candidates is no result, although its score would win (HF's rule).
TEST(BeamSearch, AnEosBelowTheBeamsIsNoResult) {
  const auto logits = [](size_t, const Ids& history) {
    if (history.size() == 1)
      return std::vector<float>{-kInfinity, std::log(0.2f), std::log(0.5f), std::log(0.3f), -kInfinity};
    return std::vector<float>{-kInfinity, -kInfinity, std::log(0.36f), std::log(0.33f), std::log(0.31f)};
  };
  StubModel model(logits);
  const auto results = search(model, Prefixes{{}}, {.max_tokens = 2, .beams = {.num_beams = 2, .length_penalty = 0}});
  EXPECT_EQ(results[0][0].ids, (Ids{2, 2}));
  EXPECT_NEAR(results[0][0].score, std::log(0.5 * 0.36), 1e-6);
  StubModel wider(logits);  // with three beams it ranks among them
  const auto wide =
      search(wider, Prefixes{{}}, {.max_tokens = 2, .num_results = 3, .beams = {.num_beams = 3, .length_penalty = 0}});
  EXPECT_TRUE(
      std::any_of(wide[0].begin(), wide[0].end(), [](const Hypothesis& result) { return result.ids == Ids{1}; }));
}

TEST(BeamSearch, MinTokensAndDeadEnds) {
  const auto logits = [](size_t, const Ids&) { return std::vector<float>{-kInfinity, 3.0f, 1.0f, 0.5f}; };
  StubModel model(logits);
  const auto results = search(
      model, Prefixes{{}}, {.max_tokens = 5, .num_results = 2, .rules = {.min_tokens = 3}, .beams = {.num_beams = 2}});
  for (const auto& hypothesis : results[0]) EXPECT_GE(hypothesis.ids.size(), 3u);
  StubModel dead(logits);
  const auto ended = search(dead, Prefixes{{}},
                            {.max_tokens = 5,
                             .num_results = 2,
                             .rules = {.no_repeat_ngram_size = 1, .min_tokens = 5},
                             .beams = {.num_beams = 2}});
  ASSERT_FALSE(ended[0].empty());
  EXPECT_EQ(ended[0][0].ids, (Ids{2, 3})) << "2 and 3 are used up and EOS is forbidden";
}

}  // namespace
}  // namespace switchyard
