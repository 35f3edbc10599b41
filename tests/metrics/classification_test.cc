#include "metrics/classification.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/error.h"
#include "metrics/correlation.h"
#include "metrics/grouped.h"

namespace switchyard {
namespace {

using Classes = std::vector<int64_t>;
using Values = std::vector<double>;

// Fixtures of T5's metrics_test.py.
TEST(Classification, MatchesT5) {
  EXPECT_NEAR(accuracy(Classes{0, 0, 2, 1}, Classes{0, 1, 2, 1}), 75, 1e-9);
  EXPECT_NEAR(macro_f1(Classes{0, 1, 1, 2}, Classes{0, 0, 2, 2}, 3), 44.4444444, 1e-6);
  EXPECT_NEAR(binary_f1(Classes{0, 1, 1, 0}, Classes{0, 1, 2, 2}), 50, 1e-9);
  EXPECT_NEAR(matthews_correlation(Classes{0, 0, 2, 1}, Classes{0, 1, 2, 1}), 70, 1e-9);
}

TEST(Classification, CountsWhatNamesNoClassAsWrong) {
  EXPECT_EQ(accuracy(Classes{0, 1}, Classes{-1, -1}), 0);
  EXPECT_EQ(binary_f1(Classes{1, 0}, Classes{-1, 0}), 0);
  EXPECT_NEAR(binary_f1(Classes{1, 0}, Classes{1, -1}), 200.0 / 3, 1e-9);  // the 0 became a false 1
  EXPECT_NEAR(macro_f1(Classes{0, 1}, Classes{0, -1}, 2), 50, 1e-9);
}

TEST(Classification, IsZeroWhereNothingVaries) {
  EXPECT_EQ(matthews_correlation(Classes{1, 1}, Classes{1, 1}), 0);
  EXPECT_EQ(matthews_correlation(Classes{0, 1}, Classes{1, 1}), 0);
  EXPECT_EQ(binary_f1(Classes{0, 0}, Classes{0, 0}), 0);
}

TEST(Classification, RefusesListsOfDifferentLengths) {
  EXPECT_THROW(accuracy(Classes{0}, Classes{0, 1}), Error);
  EXPECT_THROW(accuracy(Classes{}, Classes{}), Error);
}

TEST(Correlation, MatchesT5) {
  EXPECT_NEAR(pearson_correlation(Values{0, 2}, Values{0, 1}), 100, 1e-9);
  EXPECT_NEAR(spearman_correlation(Values{0, 2, 1}, Values{0, 1, 2}), 50, 1e-9);
}

TEST(Correlation, SharesRanksOfTies) {
  // Ranks 1.5 1.5 3 4 against 1 2 3.5 3.5: 4.5 / sqrt(4.5 * 4.5).
  EXPECT_NEAR(spearman_correlation(Values{1, 1, 2, 3}, Values{1, 2, 5, 5}), 100 * 4.0 / 4.5, 1e-9);
}

TEST(Correlation, IsUndefinedWithoutVariation) {
  EXPECT_TRUE(std::isnan(pearson_correlation(Values{1, 2, 3}, Values{-1, -1, -1})));
  EXPECT_TRUE(std::isnan(spearman_correlation(Values{2, 2}, Values{0, 1})));
  EXPECT_TRUE(std::isnan(pearson_correlation(Values{1}, Values{2})));
  EXPECT_TRUE(std::isnan(spearman_correlation(Values{1, 2}, Values{NAN, 1})));
}

// T5: questions a (0, 1) and b (0), predictions 0 0 1: a half right, b wrong; all of a question's answers count.
TEST(Grouped, CountsWholeQuestions) {
  const std::vector<std::string> groups = {"a", "a", "b", "c", "b"};
  EXPECT_NEAR(group_exact_match(groups, Classes{0, 1, 0, 1, 1}, Classes{0, 1, 0, 0, 0}), 100.0 / 3, 1e-9);
}

TEST(Grouped, ParityAsksForEqualPredictionsNotRightOnes) {
  const std::vector<std::string> groups = {"0", "0", "1", "1", "2", "2", "alone"};
  EXPECT_NEAR(group_parity(groups, Classes{1, 1, 0, 1, -1, -1, 0}), 200.0 / 3, 1e-9);
  EXPECT_THROW(group_parity(std::vector<std::string>{"a", "b"}, Classes{0, 0}), Error);
}

}  // namespace
}  // namespace switchyard
