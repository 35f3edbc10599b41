// Agreement of two rows of numbers, in percent. NaN where it is undefined: fewer than two pairs, all targets or all
// predictions the same, or a number that is not finite.
#pragma once

#include <span>

namespace switchyard {

double pearson_correlation(std::span<const double> targets, std::span<const double> predictions);

// Pearson's correlation of the ranks; equal numbers share the mean of their ranks.
double spearman_correlation(std::span<const double> targets, std::span<const double> predictions);

}  // namespace switchyard
