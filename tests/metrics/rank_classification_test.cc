#include "metrics/rank_classification.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace switchyard {
namespace {

std::vector<RankedExample> examples(const std::vector<std::vector<double>>& scores, const std::vector<size_t>& truth,
                                    const std::vector<double>& weights) {
  std::vector<RankedExample> result;
  for (size_t n = 0; n < scores.size(); ++n) {
    RankedExample example{scores[n], std::vector<bool>(scores[n].size()), weights.empty() ? 1.0 : weights[n]};
    example.correct.at(truth[n]) = true;
    result.push_back(example);
  }
  return result;
}

// Fixtures of T5's metrics_test.py.
TEST(RankClassification, MatchesT5OnTwoClasses) {
  const std::vector<std::vector<double>> scores = {{.1, .5}, {1.0, 1.1}, {.3, .1}, {.6, .5}};
  const auto plain = score_ranks(examples(scores, {0, 1, 0, 0}, {}));
  EXPECT_NEAR(plain.accuracy, 75, 1e-6);
  EXPECT_NEAR(plain.auc_pr.value(), 50, 1e-6);
  EXPECT_NEAR(plain.auc_roc.value(), 66.6666667, 1e-6);
  EXPECT_NEAR(plain.f1.value(), 66.6666667, 1e-6);
  const auto weighted = score_ranks(examples(scores, {0, 1, 0, 0}, {.2, 1, .8, .5}));
  EXPECT_NEAR(weighted.accuracy, 92, 1e-6);
  EXPECT_NEAR(weighted.auc_pr.value(), 83.3333333, 1e-6);
  EXPECT_NEAR(weighted.auc_roc.value(), 86.6666667, 1e-6);
  EXPECT_NEAR(weighted.f1.value(), 90.9090909, 1e-6);
}

TEST(RankClassification, MatchesT5OnThreeClasses) {
  const std::vector<std::vector<double>> scores = {{.1, .5, 0}, {-2, -1, -3}, {3.0, 3.1, 3.2}};
  const auto plain = score_ranks(examples(scores, {1, 0, 2}, {}));
  EXPECT_NEAR(plain.accuracy, 66.6666667, 1e-6);
  EXPECT_NEAR(plain.macro_f1.value(), 55.5555556, 1e-6);
  EXPECT_FALSE(plain.f1 || plain.auc_roc || plain.auc_pr);
  const auto weighted = score_ranks(examples(scores, {1, 0, 2}, {.2, .5, 1}));
  EXPECT_NEAR(weighted.accuracy, 70.5882353, 1e-6);
  EXPECT_NEAR(weighted.macro_f1.value(), 48.1481481, 1e-6);
}

TEST(RankClassification, TakesSeveralRightClassesAndAnyNumberOfThem) {
  const std::vector<RankedExample> mixed = {{{1, 2, 3}, {true, false, true}, 1.0}, {{2, 1}, {false, true}, 1.0}};
  const auto score = score_ranks(mixed);
  EXPECT_EQ(score.accuracy, 50);
  EXPECT_FALSE(score.f1 || score.macro_f1);
}

TEST(RankClassification, TieGoesToTheFirstClass) {
  EXPECT_EQ(score_ranks(examples({{1, 1}, {1, 1}}, {0, 1}, {})).accuracy, 50);
  EXPECT_THROW(score_ranks({}), Error);
}

}  // namespace
}  // namespace switchyard
