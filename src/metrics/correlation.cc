#include "metrics/correlation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/error.h"

namespace switchyard {
namespace {

constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();

bool varies(std::span<const double> values) {
  return std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); }) &&
         std::any_of(values.begin(), values.end(), [&](double value) { return value != values[0]; });
}

// Less the mean, divided by the norm. By the largest deviation first, so that no square overflows.
std::vector<double> standardize(std::span<const double> values) {
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  std::vector<double> result(values.begin(), values.end());
  double largest = 0;
  for (double& value : result) {
    value -= mean;
    largest = std::max(largest, std::abs(value));
  }
  double squares = 0;
  for (double& value : result) {
    value /= largest;
    squares += value * value;
  }
  for (double& value : result) value /= std::sqrt(squares);
  return result;
}

std::vector<double> ranks(std::span<const double> values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> result(values.size());
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    const double shared = static_cast<double>(begin + 1 + end) / 2;
    for (size_t n = begin; n < end; ++n) result[order[n]] = shared;
  }
  return result;
}

}  // namespace

double pearson_correlation(std::span<const double> targets, std::span<const double> predictions) {
  SY_CHECK(targets.size() == predictions.size(), "metrics: ", targets.size(), " targets but ", predictions.size(),
           " predictions");
  if (targets.size() < 2 || !varies(targets) || !varies(predictions)) return kUndefined;
  const auto first = standardize(targets), second = standardize(predictions);
  const double product = std::inner_product(first.begin(), first.end(), second.begin(), 0.0);
  return 100.0 * std::clamp(product, -1.0, 1.0);
}

double spearman_correlation(std::span<const double> targets, std::span<const double> predictions) {
  const auto has_nan = [](std::span<const double> values) {
    return std::any_of(values.begin(), values.end(), [](double value) { return std::isnan(value); });
  };
  if (has_nan(targets) || has_nan(predictions)) return kUndefined;  // without an order
  return pearson_correlation(ranks(targets), ranks(predictions));
}

}  // namespace switchyard
