// Scores of chosen classes. A class is a number; -1 stands for an output that names none of them. All scores are
// percentages, as T5 reports them; `targets` and `predictions` have the same length, which is not 0.
#pragma once

#include <cstdint>
#include <span>

namespace switchyard {

double accuracy(std::span<const int64_t> targets, std::span<const int64_t> predictions);

// F1 of class 1 against class 0, where any other prediction counts as the wrong one of the two (T5's
// f1_score_with_invalid). 0 where it is undefined.
double binary_f1(std::span<const int64_t> targets, std::span<const int64_t> predictions);

// Mean of the F1 of classes 0 ... num_classes - 1, a class that occurs nowhere counted as 0 (T5's mean_multiclass_f1).
double macro_f1(std::span<const int64_t> targets, std::span<const int64_t> predictions, int64_t num_classes);

// Matthews correlation over however many classes occur; 0 where targets or predictions are all the same.
double matthews_correlation(std::span<const int64_t> targets, std::span<const int64_t> predictions);

}  // namespace switchyard
