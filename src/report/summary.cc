#include "report/summary.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>

namespace switchyard {
namespace {

std::optional<double> tail_mean(const LogSeries& series) {
  if (series.empty()) return std::nullopt;
  const size_t count = std::max<size_t>(1, series.size() / 20);
  double sum = 0;
  for (size_t n = series.size() - count; n < series.size(); ++n) sum += series[n].value;
  return sum / static_cast<double>(count);
}

std::optional<double> median(const LogSeries& series) {
  if (series.empty()) return std::nullopt;
  std::vector<double> values;
  for (const auto& point : series) values.push_back(point.value);
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// The value at `place` along `axis`, between the two points around it; the last value beyond the end.
double value_at(const LogSeries& series, double LogPoint::*axis, double place) {
  for (size_t n = 1; n < series.size(); ++n) {
    const auto &before = series[n - 1], &after = series[n];
    if (after.*axis < place) continue;
    const double length = after.*axis - before.*axis;
    const double share = length > 0 ? std::clamp((place - before.*axis) / length, 0.0, 1.0) : 1.0;
    return before.value + share * (after.value - before.value);
  }
  return series.back().value;
}

// Where along `axis` the value first falls to `level`.
double first_at(const LogSeries& series, double LogPoint::*axis, double level) {
  for (size_t n = 0; n < series.size(); ++n) {
    if (series[n].value > level) continue;
    if (n == 0) return series[0].*axis;
    const auto &before = series[n - 1], &after = series[n];
    return before.*axis + (before.value - level) / (before.value - after.value) * (after.*axis - before.*axis);
  }
  return series.back().*axis;
}

double lowest(const LogSeries& series) {
  return std::min_element(series.begin(), series.end(),
                          [](const LogPoint& a, const LogPoint& b) { return a.value < b.value; })
      ->value;
}

const std::string kPartLoss = "eval_loss_";

bool is_sparse(const RunLog& run) {
  const auto model = run.config.value("model", Json::object());
  return model.contains("num_experts") && model.at("num_experts").is_number() && model.at("num_experts") > 0;
}

// The mean over runs at the steps that `shared` has.
LogSeries mean_series(const std::vector<const RunLog*>& runs, const std::string& key, const std::set<double>& shared) {
  LogSeries mean;
  for (const double step : shared) {
    LogPoint point{.step = step};
    for (const auto* run : runs)
      point.value += value_at(run->scalar(key), &LogPoint::step, step) / static_cast<double>(runs.size());
    mean.push_back(point);
  }
  return mean;
}

// Steps at which every run has a value of that key.
std::set<double> shared_steps(const std::vector<RunLog>& runs, const std::string& key) {
  std::map<double, size_t> counts;
  for (const auto& run : runs)
    for (const auto& point : run.scalar(key)) ++counts[point.step];
  std::set<double> shared;
  for (const auto& [step, count] : counts)
    if (count == runs.size()) shared.insert(step);
  return shared;
}

}  // namespace

RunSummary summarize(const RunLog& run) {
  RunSummary summary;
  for (const auto& [key, series] : run.scalars) {
    summary.steps = std::max(summary.steps, series.empty() ? 0.0 : series.back().step);
    summary.seconds = std::max(summary.seconds, series.empty() ? 0.0 : series.back().seconds);
  }
  summary.tokens_per_second = median(run.scalar("tokens_per_second"));
  summary.train_loss = tail_mean(run.scalar(run.scalar("cross_entropy").empty() ? "loss" : "cross_entropy"));
  if (const auto& evaluations = run.scalar("eval_loss"); !evaluations.empty()) {
    summary.final_eval_loss = evaluations.back().value;
    summary.best_eval_loss = lowest(evaluations);
  }
  double dropped = 0;
  size_t layers = 0;
  for (const auto& layer : run.layers) {
    if (const auto mean = tail_mean(layer.number("dropped_fraction"))) {
      dropped += *mean;
      ++layers;
    }
  }
  if (layers > 0) summary.dropped_fraction = dropped / static_cast<double>(layers);
  return summary;
}

std::optional<EqualTerms> compare_on_equal_terms(const std::vector<RunLog>& runs) {
  if (runs.size() < 2) return std::nullopt;
  EqualTerms terms{.step = std::numeric_limits<double>::infinity(),
                   .seconds = std::numeric_limits<double>::infinity(),
                   .loss = -std::numeric_limits<double>::infinity(),
                   .rows = {}};
  for (const auto& run : runs) {
    const auto& evaluations = run.scalar("eval_loss");
    if (evaluations.size() < 2) return std::nullopt;
    terms.step = std::min(terms.step, evaluations.back().step);
    terms.seconds = std::min(terms.seconds, evaluations.back().seconds);
    terms.loss = std::max(terms.loss, lowest(evaluations));
  }
  for (const auto& run : runs) {
    const auto& evaluations = run.scalar("eval_loss");
    terms.rows.push_back({.loss_at_step = value_at(evaluations, &LogPoint::step, terms.step),
                          .loss_at_seconds = value_at(evaluations, &LogPoint::seconds, terms.seconds),
                          .steps_to_loss = first_at(evaluations, &LogPoint::step, terms.loss),
                          .seconds_to_loss = first_at(evaluations, &LogPoint::seconds, terms.loss)});
  }
  return terms;
}

std::vector<PartComparison> compare_parts(const std::vector<RunLog>& runs) {
  std::vector<const RunLog*> dense, sparse;
  for (const auto& run : runs) (is_sparse(run) ? sparse : dense).push_back(&run);
  if (dense.empty() || sparse.empty()) return {};
  std::vector<PartComparison> parts;
  for (const auto& [key, series] : runs.front().scalars) {
    if (!key.starts_with(kPartLoss)) continue;
    const auto steps = shared_steps(runs, key);
    if (steps.size() < 2) continue;
    const auto of_dense = mean_series(dense, key, steps), of_sparse = mean_series(sparse, key, steps);
    const double level = std::max(lowest(of_dense), lowest(of_sparse));
    parts.push_back({.name = key.substr(kPartLoss.size()),
                     .dense_loss = of_dense.back().value,
                     .sparse_loss = of_sparse.back().value,
                     .dense_steps = first_at(of_dense, &LogPoint::step, level),
                     .sparse_steps = first_at(of_sparse, &LogPoint::step, level)});
  }
  if (parts.size() < 2) return {};
  std::stable_sort(parts.begin(), parts.end(),
                   [](const auto& a, const auto& b) { return a.improvement() > b.improvement(); });
  return parts;
}

}  // namespace switchyard
