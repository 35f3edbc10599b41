#include "report/ladder_section.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>
#include <vector>

#include "base/error.h"
#include "report/chart.h"
#include "report/html.h"

namespace switchyard {
namespace {

using Points = std::vector<std::pair<double, double>>;

// Runs of one contender on one rung at one rate, one a seed.
struct Group {
  std::string rung, contender;
  double rate = 0.0, steps = 0.0, parameters = 0.0, num_experts = 0.0;
  std::vector<double> losses;                   // at the end, one a seed
  std::map<double, std::vector<double>> curve;  // step: losses, one a seed
  std::optional<double> step_seconds;

  double mean() const {
    double sum = 0.0;
    for (const double loss : losses) sum += loss;
    return sum / static_cast<double>(losses.size());
  }
  // Squared standard error of the mean; 0 for one seed, whose spread nobody knows.
  double squared_error() const {
    const auto count = static_cast<double>(losses.size());
    if (losses.size() < 2) return 0.0;
    double sum = 0.0;
    for (const double loss : losses) sum += (loss - mean()) * (loss - mean());
    return sum / (count - 1.0) / count;
  }
  Points points(bool over_time) const {
    Points points;
    for (const auto& [step, values] : curve) {
      double sum = 0.0;
      for (const double value : values) sum += value;
      if (values.size() == losses.size())
        points.emplace_back(over_time ? step * step_seconds.value_or(0.0) : step,
                            sum / static_cast<double>(values.size()));
    }
    return points;
  }
};

double number_at(const Json& run, const char* key, const std::string& source) {
  SY_CHECK(run.is_object() && run.contains(key) && run.at(key).is_number(), source, ": expected a number \"", key,
           "\" in every run of a ladder");
  return run.at(key).get<double>();
}

std::string name_at(const Json& run, const char* key, const std::string& source) {
  SY_CHECK(run.is_object() && run.contains(key) && run.at(key).is_string(), source, ": expected a string \"", key,
           "\" in every run of a ladder");
  return run.at(key).get<std::string>();
}

void add_run(Group& group, const Json& run, const std::string& source) {
  group.steps = number_at(run, "steps", source);
  group.parameters = number_at(run, "parameters", source);
  group.num_experts = number_at(run, "num_experts", source);
  SY_CHECK(run.contains("curve") && run.at("curve").is_array() && !run.at("curve").empty(), source,
           ": expected a \"curve\" in every run of a ladder");
  for (const auto& point : run.at("curve"))
    group.curve[number_at(point, "step", source)].push_back(number_at(point, "eval_loss", source));
  group.losses.push_back(number_at(run.at("curve").back(), "eval_loss", source));
}

// For every rung and contender the rate that most seeds ran at, the best of those.
std::vector<Group> read_groups(const Json& document, const std::string& source) {
  std::vector<Group> all, best;
  for (const auto& run : document.at("runs")) {
    Group key;
    key.rung = name_at(run, "rung", source);
    key.contender = name_at(run, "contender", source);
    key.rate = number_at(run, "rate", source);
    auto found = std::find_if(all.begin(), all.end(), [&](const Group& group) {
      return group.rung == key.rung && group.contender == key.contender && group.rate == key.rate;
    });
    if (found == all.end()) found = all.insert(all.end(), key);
    add_run(*found, run, source);
  }
  for (const auto& group : all) {
    const auto found = std::find_if(best.begin(), best.end(), [&](const Group& other) {
      return group.rung == other.rung && group.contender == other.contender;
    });
    if (found == best.end())
      best.push_back(group);
    else if (group.losses.size() > found->losses.size() ||
             (group.losses.size() == found->losses.size() && group.mean() < found->mean()))
      *found = group;
  }
  if (document.contains("step_times"))
    for (const auto& time : document.at("step_times"))
      for (auto& group : best)
        if (group.rung == name_at(time, "rung", source) && group.contender == name_at(time, "contender", source))
          group.step_seconds = number_at(time, "seconds", source);
  return best;
}

std::string formatted(const char* form, double value) {
  char text[48];
  std::snprintf(text, sizeof text, form, value);
  return text;
}

std::string row_of(const Group& group, const Group* baseline) {
  std::string row = "<tr><td>" + escape_html(group.rung) + "</td><td>" + escape_html(group.contender) + "</td><td>" +
                    format_number(group.parameters, 3) + "</td><td>" + format_number(group.rate, 3) + "</td><td>" +
                    formatted("%.0f", group.steps) + "</td><td>";
  if (group.step_seconds)
    row +=
        formatted("%.1f", *group.step_seconds * 1e3) + "</td><td>" + format_seconds(*group.step_seconds * group.steps);
  else
    row += "</td><td>";
  row += "</td><td>" + formatted("%.0f", static_cast<double>(group.losses.size())) + "</td><td>" +
         formatted("%.4f", group.mean());
  if (group.losses.size() > 1) row += formatted(" ± %.4f", std::sqrt(group.squared_error()));
  row += "</td><td>";
  if (baseline != nullptr && baseline->contender != group.contender) {
    row += formatted("%+.4f", group.mean() - baseline->mean());
    if (group.losses.size() > 1 && baseline->losses.size() > 1)
      row += formatted(" ± %.4f", std::sqrt(group.squared_error() + baseline->squared_error()));
  }
  return row + "</td></tr>\n";
}

std::string loss_chart(const std::vector<const Group*>& groups, const std::string& rung, bool over_time) {
  Chart chart{.title = rung + (over_time ? ": loss against time" : ": loss against steps"),
              .x_label = over_time ? "training time" : "step",
              .y_label = "nats per token",
              .lines = {}};
  chart.x_is_seconds = over_time;
  chart.unscaled_start = 0.05;
  for (size_t n = 0; n < groups.size(); ++n)
    if (!over_time || groups[n]->step_seconds)
      chart.lines.push_back(
          {.name = groups[n]->contender, .color = n, .points = groups[n]->points(over_time), .has_markers = true});
  return chart.lines.empty() ? "" : draw_chart(chart);
}

// Figure 4 of the paper: models of as many steps as the baseline, which stands at one expert.
std::string experts_chart(const std::vector<Group>& groups, const std::vector<std::string>& rungs,
                          const std::string& baseline) {
  Chart chart{
      .title = "Loss against experts, equal steps", .x_label = "experts", .y_label = "nats per token", .lines = {}};
  chart.x_is_log2 = true;
  for (const auto& rung : rungs) {
    Points points;
    double steps = 0.0;
    for (const auto& group : groups)
      if (group.rung == rung && group.contender == baseline) steps = group.steps;
    for (const auto& group : groups)
      if (group.rung == rung && group.steps == steps && (group.num_experts > 0 || group.contender == baseline))
        points.emplace_back(std::log2(std::max(1.0, group.num_experts)), group.mean());
    std::sort(points.begin(), points.end());
    if (points.size() > 1)
      chart.lines.push_back(
          {.name = rung, .color = chart.lines.size(), .points = std::move(points), .has_markers = true});
  }
  return chart.lines.empty() ? "" : draw_chart(chart);
}

}  // namespace

std::string draw_ladder(const Json& document, const std::string& source) {
  SY_CHECK(document.is_object() && document.contains("runs") && document.at("runs").is_array(), source,
           ": expected an object with \"runs\" of a ladder");
  const auto groups = read_groups(document, source);
  if (groups.empty()) return "";
  const std::string baseline = document.value("baseline", std::string());
  std::vector<std::string> rungs;
  for (const auto& group : groups)
    if (std::find(rungs.begin(), rungs.end(), group.rung) == rungs.end()) rungs.push_back(group.rung);
  std::string rows, charts;
  for (const auto& rung : rungs) {
    std::vector<const Group*> of_rung;
    const Group* reference = nullptr;
    for (const auto& group : groups) {
      if (group.rung != rung) continue;
      of_rung.push_back(&group);
      if (group.contender == baseline) reference = &group;
    }
    for (const auto* group : of_rung) rows += row_of(*group, reference);
    charts += loss_chart(of_rung, rung, false) + loss_chart(of_rung, rung, true);
  }
  return "<h2>Ladder</h2>\n<p class=quiet>Held-out loss at the end of each run, mean over seeds and its standard "
         "error; every contender at "
         "the best rate of its own sweep. Time is steps times a step's time on a quiet machine.</p>\n"
         "<div class='scroll left'><table><tr><th>Rung<th>Contender<th>Parameters<th>Rate<th>Steps<th>ms a "
         "step<th>Time<th>Seeds<th>Held-out "
         "loss<th>Against " +
         escape_html(baseline) + "</tr>\n" + rows + "</table></div>\n<h3>Curves</h3>\n<div class=grid-2>\n" + charts +
         experts_chart(groups, rungs, baseline) + "</div>\n";
}

}  // namespace switchyard
