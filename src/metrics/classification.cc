#include "metrics/classification.h"

#include <cmath>
#include <map>

#include "base/error.h"

namespace switchyard {
namespace {

void check_pairs(std::span<const int64_t> targets, std::span<const int64_t> predictions) {
  SY_CHECK(targets.size() == predictions.size(), "metrics: ", targets.size(), " targets but ", predictions.size(),
           " predictions");
  SY_CHECK(!targets.empty(), "metrics: nothing to score");
}

struct Counts {
  double both = 0, target = 0, predicted = 0;
  double f1() const { return target + predicted > 0 ? 2 * both / (target + predicted) : 0; }
};

}  // namespace

double accuracy(std::span<const int64_t> targets, std::span<const int64_t> predictions) {
  check_pairs(targets, predictions);
  int64_t equal = 0;
  for (size_t n = 0; n < targets.size(); ++n) equal += targets[n] == predictions[n] ? 1 : 0;
  return 100.0 * static_cast<double>(equal) / static_cast<double>(targets.size());
}

double binary_f1(std::span<const int64_t> targets, std::span<const int64_t> predictions) {
  check_pairs(targets, predictions);
  Counts positive;
  for (size_t n = 0; n < targets.size(); ++n) {
    const bool valid = predictions[n] == 0 || predictions[n] == 1;
    const int64_t prediction = valid ? predictions[n] : 1 - targets[n];
    positive.both += targets[n] == 1 && prediction == 1 ? 1 : 0;
    positive.target += targets[n] == 1 ? 1 : 0;
    positive.predicted += prediction == 1 ? 1 : 0;
  }
  return 100.0 * positive.f1();
}

double macro_f1(std::span<const int64_t> targets, std::span<const int64_t> predictions, int64_t num_classes) {
  check_pairs(targets, predictions);
  SY_CHECK(num_classes > 0, "metrics: macro F1 over ", num_classes, " classes");
  double sum = 0;
  for (int64_t one = 0; one < num_classes; ++one) {
    Counts counts;
    for (size_t n = 0; n < targets.size(); ++n) {
      counts.both += targets[n] == one && predictions[n] == one ? 1 : 0;
      counts.target += targets[n] == one ? 1 : 0;
      counts.predicted += predictions[n] == one ? 1 : 0;
    }
    sum += counts.f1();
  }
  return 100.0 * sum / static_cast<double>(num_classes);
}

// Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation coefficient".
double matthews_correlation(std::span<const int64_t> targets, std::span<const int64_t> predictions) {
  check_pairs(targets, predictions);
  std::map<int64_t, Counts> classes;
  double correct = 0;
  for (size_t n = 0; n < targets.size(); ++n) {
    ++classes[targets[n]].target;
    ++classes[predictions[n]].predicted;
    correct += targets[n] == predictions[n] ? 1 : 0;
  }
  const double samples = static_cast<double>(targets.size());
  double cross = 0, targets_squared = 0, predictions_squared = 0;
  for (const auto& [unused, counts] : classes) {
    cross += counts.target * counts.predicted;
    targets_squared += counts.target * counts.target;
    predictions_squared += counts.predicted * counts.predicted;
  }
  const double spread = (samples * samples - predictions_squared) * (samples * samples - targets_squared);
  return spread > 0 ? 100.0 * (correct * samples - cross) / std::sqrt(spread) : 0;
}

}  // namespace switchyard
