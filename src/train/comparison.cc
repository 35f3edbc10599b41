#include "train/comparison.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

#include "base/clock.h"
#include "base/interrupt.h"
#include "base/progress.h"

namespace switchyard {
namespace {

void evaluate(ComparedRun& run, RunOutcome& outcome) {
  if (!outcome.curve.empty() && outcome.curve.back().step == run.trainer->step()) return;
  if (const auto loss = find_number(run.trainer->evaluate(), "eval_loss"))
    outcome.curve.push_back({run.trainer->step(), outcome.seconds, *loss});
}

double tokens_per_second(const ComparedRun& run, const RunOutcome& outcome) {
  return static_cast<double>(outcome.steps * run.trainer->tokens_per_step()) / outcome.seconds;
}

double mean_of(const Json& values) {
  double sum = 0.0;
  for (const auto& [name, value] : values.items()) sum += value.get<double>();
  return values.empty() ? 0.0 : sum / static_cast<double>(values.size());
}

// What earlier processes did of a run that is resumed, by its log.
void recall(const ComparedRun& run, RunOutcome& outcome) {
  outcome.steps = run.trainer->step();
  std::ifstream log(run.trainer->folder() / "metrics.jsonl");
  int64_t last_step = 0;
  for (std::string text; std::getline(log, text);) {
    const Json line = parse_json(text, (run.trainer->folder() / "metrics.jsonl").string());
    const auto step = line.at("step").get<int64_t>();
    if (line.contains("step_seconds")) {  // stands for the steps since the last line that was logged
      outcome.seconds += line.at("step_seconds").get<double>() * static_cast<double>(step - last_step);
      last_step = step;
      outcome.dropped_fraction = mean_of(line.at("dropped_fraction"));
    }
    if (line.contains("eval_loss") && line.at("eval_loss").is_number())
      outcome.curve.push_back({step, outcome.seconds, line.at("eval_loss").get<double>()});
  }
  if (outcome.seconds > 0) outcome.tokens_per_second = tokens_per_second(run, outcome);
}

void check_same_data(const std::vector<ComparedRun>& runs) {
  const auto& first = runs.front().trainer->run();
  for (const auto& run : runs) {
    const auto& other = run.trainer->run();
    SY_CHECK(fields_to_json(first.data) == fields_to_json(other.data) &&
                 first.train.batch_size == other.train.batch_size && first.train.seed == other.train.seed &&
                 first.train.eval_every == other.train.eval_every,
             "compare: ", runs.front().name, " and ", run.name,
             " differ in [data], train.batch_size, train.seed or train.eval_every; they must see the same data in the "
             "same order");
  }
}

}  // namespace

Comparison compare_runs(std::vector<ComparedRun>& runs, double minutes, bool quiet) {
  SY_CHECK(!runs.empty(), "compare needs at least one run file");
  check_same_data(runs);
  Comparison comparison;
  const double budget = minutes * 60.0 / static_cast<double>(runs.size());
  double total_work = 0.0;
  for (const auto& run : runs) {
    comparison.runs.emplace_back().name = run.name;
    total_work += minutes > 0 ? budget : static_cast<double>(run.trainer->run().train.steps);
  }
  const auto is_done = [&](size_t n) {
    return minutes > 0 ? comparison.runs[n].seconds >= budget
                       : runs[n].trainer->step() >= runs[n].trainer->run().train.steps;
  };
  Progress progress({.name = "compare", .unit = minutes > 0 ? "s" : "steps", .quiet = quiet, .after_seconds = 0},
                    total_work);
  for (size_t n = 0; n < runs.size(); ++n) {
    if (runs[n].trainer->step() > 0) recall(runs[n], comparison.runs[n]);
    evaluate(runs[n], comparison.runs[n]);
  }
  std::vector<std::string> texts(runs.size());
  while (!interrupted()) {
    size_t next = runs.size();
    for (size_t n = 0; n < runs.size(); ++n)
      if (!is_done(n) && (next == runs.size() || comparison.runs[n].seconds < comparison.runs[next].seconds)) next = n;
    if (next == runs.size()) break;
    auto& run = runs[next];
    auto& outcome = comparison.runs[next];
    const double start = steady_seconds();
    const StepResult result = run.trainer->train_step();
    outcome.seconds += steady_seconds() - start;
    outcome.steps = run.trainer->step();
    outcome.tokens_per_second = tokens_per_second(run, outcome);
    outcome.dropped_fraction = mean_dropped_fraction(result);
    if (run.trainer->run().train.eval_every > 0 && outcome.steps % run.trainer->run().train.eval_every == 0)
      evaluate(run, outcome);
    const auto& train = run.trainer->run().train;
    if ((train.save_every > 0 && outcome.steps % train.save_every == 0) || run.trainer->has_new_best())
      run.trainer->save();
    char text[160];
    std::snprintf(text, sizeof text, "%s step %lld loss %.3f %.0f tok/s", run.name.c_str(),
                  static_cast<long long>(outcome.steps), result.cross_entropy, outcome.tokens_per_second);
    texts[next] = text;
    if (outcome.dropped_fraction > 0)
      texts[next] += join(" drop ", std::round(outcome.dropped_fraction * 1000) / 10, "%");
    double done = 0.0;
    std::string line;
    for (size_t n = 0; n < runs.size(); ++n) {
      done +=
          minutes > 0 ? std::min(budget, comparison.runs[n].seconds) : static_cast<double>(comparison.runs[n].steps);
      line += (line.empty() || texts[n].empty() ? "" : " | ") + texts[n];
    }
    progress.update(done, line);
  }
  progress.finish();
  comparison.interrupted = interrupted();
  comparison.equal_seconds = std::numeric_limits<double>::infinity();
  for (size_t n = 0; n < runs.size(); ++n) {
    evaluate(runs[n], comparison.runs[n]);
    comparison.runs[n].checkpoint = runs[n].trainer->save().string();
    comparison.equal_seconds = std::min(comparison.equal_seconds, comparison.runs[n].seconds);
  }
  for (const auto& point : comparison.runs.front().curve) {
    const bool everywhere = std::all_of(comparison.runs.begin(), comparison.runs.end(), [&](const RunOutcome& run) {
      return std::any_of(run.curve.begin(), run.curve.end(),
                         [&](const auto& other) { return other.step == point.step; });
    });
    if (everywhere) comparison.equal_step = point.step;
  }
  return comparison;
}

double loss_at_step(const RunOutcome& run, int64_t step) {
  for (const auto& point : run.curve)
    if (point.step == step) return point.loss;
  return std::numeric_limits<double>::quiet_NaN();
}

double loss_at_time(const RunOutcome& run, double seconds) {
  for (size_t n = 1; n < run.curve.size(); ++n) {
    const auto &before = run.curve[n - 1], &after = run.curve[n];
    if (seconds > after.seconds) continue;
    const double share =
        after.seconds > before.seconds ? (seconds - before.seconds) / (after.seconds - before.seconds) : 1.0;
    return before.loss + share * (after.loss - before.loss);
  }
  return run.curve.empty() ? std::numeric_limits<double>::quiet_NaN() : run.curve.back().loss;
}

Json to_json(const Comparison& comparison) {
  Json json{
      {"equal_step", comparison.equal_step}, {"equal_seconds", comparison.equal_seconds}, {"runs", Json::array()}};
  for (const auto& run : comparison.runs) {
    Json curve = Json::array();
    for (const auto& point : run.curve)
      curve.push_back({{"step", point.step}, {"seconds", point.seconds}, {"eval_loss", point.loss}});
    json["runs"].push_back({{"name", run.name},
                            {"steps", run.steps},
                            {"seconds", run.seconds},
                            {"tokens_per_second", run.tokens_per_second},
                            {"loss_at_equal_step", loss_at_step(run, comparison.equal_step)},
                            {"loss_at_equal_time", loss_at_time(run, comparison.equal_seconds)},
                            {"dropped_fraction", run.dropped_fraction},
                            {"checkpoint", run.checkpoint},
                            {"curve", curve}});
  }
  return json;
}

}  // namespace switchyard
