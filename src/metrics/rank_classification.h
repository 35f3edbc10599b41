// Classification by log-likelihood: each example's classes are scored as targets, and the best one is the prediction
// (T5's rank_classification).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace switchyard {

struct RankedExample {
  std::vector<double> scores;  // [classes]
  std::vector<bool> correct;   // [classes]; more than one may be
  double weight = 1.0;
};

// Percent. What is not defined is left out: F1 of class 1 and areas under the curves of its probability for two
// classes, mean F1 for more, only accuracy where examples have several right classes or differ in their number.
struct RankScore {
  double accuracy = 0;
  std::optional<double> f1 = {}, macro_f1 = {}, auc_roc = {}, auc_pr = {};
};

// Ties go to the first class. Throws Error if an example's sizes differ or there is none.
RankScore score_ranks(std::span<const RankedExample> examples);

}  // namespace switchyard
