#include "serve/run_state.h"

#include <algorithm>

#include "base/lock_file.h"
#include "report/summary.h"

namespace switchyard {
namespace {

constexpr size_t kLatest = 10;  // logged lines, or spans of them, that means are taken over

double mean_of_latest(const LogSeries& series) {
  const size_t count = std::min(kLatest, series.size());
  double sum = 0.0;
  for (size_t n = series.size() - count; n < series.size(); ++n) sum += series[n].value;
  return count > 0 ? sum / static_cast<double>(count) : 0.0;
}

Json or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json layer_state(const LayerLog& layer) {
  const auto& spans = layer.load.loads;
  const size_t count = std::min(kLatest, spans.size());
  std::vector<double> load(spans.empty() ? 0 : spans.back().size(), 0.0);
  for (size_t n = spans.size() - count; n < spans.size(); ++n)
    for (size_t expert = 0; expert < load.size(); ++expert)
      load[expert] += spans[n][expert] / static_cast<double>(count);
  return {{"name", layer.name}, {"dropped", mean_of_latest(layer.number("dropped_fraction"))}, {"load", load}};
}

double steps_of(const Json& config) {
  if (!config.contains("train") || !config.at("train").contains("steps")) return 0.0;
  const auto& steps = config.at("train").at("steps");
  return steps.is_number() ? steps.get<double>() : 0.0;
}

}  // namespace

Json run_state(const RunLog& run) {
  const auto summary = summarize(run);
  const double steps = steps_of(run.config);
  const auto& step_seconds = run.scalar("step_seconds");
  Json layers = Json::array();
  for (const auto& layer : run.layers)
    if (!layer.load.loads.empty()) layers.push_back(layer_state(layer));
  Json left = nullptr;
  if (steps > 0.0 && !step_seconds.empty()) left = std::max(0.0, steps - summary.steps) * mean_of_latest(step_seconds);
  return {{"name", run.name},
          {"state", is_locked(run.folder / ".lock")         ? "training"
                    : steps > 0.0 && summary.steps >= steps ? "finished"
                                                            : "stopped"},
          {"step", summary.steps},
          {"steps", steps},
          {"seconds", summary.seconds},
          {"seconds_left", left},
          {"tokens_per_second", or_null(summary.tokens_per_second)},
          {"train_loss", or_null(summary.train_loss)},
          {"eval_loss", or_null(summary.final_eval_loss)},
          {"best_eval_loss", or_null(summary.best_eval_loss)},
          {"layers", layers}};
}

}  // namespace switchyard
