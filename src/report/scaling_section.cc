#include "report/scaling_section.h"

#include <cmath>

#include "base/error.h"
#include "report/chart.h"
#include "report/html.h"

namespace switchyard {
namespace {

using Points = std::vector<std::pair<double, double>>;

double number_at(const Json& point, const char* key, const std::string& source) {
  SY_CHECK(point.is_object() && point.contains(key) && point.at(key).is_number(), source, ": expected a number \"", key,
           "\" in every point of a scaling study");
  return point.at(key).get<double>();
}

// Points whose layout fits: log2 of the devices, and what `value` takes from the point.
template <class Value>
Points points_of(const Json& list, const std::string& source, Value&& value) {
  SY_CHECK(list.is_array(), source, ": expected a list of points of a scaling study");
  Points points;
  for (const auto& point : list)
    if (!point.is_object() || point.value("fits", true))
      points.emplace_back(std::log2(number_at(point, "devices", source)), value(point));
  return points;
}

Chart new_chart(const std::string& title, const std::string& y_label, bool is_fraction) {
  Chart chart{.title = title, .x_label = "devices", .y_label = y_label, .lines = {}};
  chart.x_is_log2 = true;
  chart.y_is_fraction = is_fraction;
  return chart;
}

std::string efficiency_chart(const Json& study, const std::string& title, const std::string& source) {
  auto chart = new_chart(title, "of the first's speed a device", /*is_fraction=*/true);
  const std::pair<const char*, const char*> lines[] = {{"weak", "weak scaling"},
                                                       {"strong", "strong scaling"},
                                                       {"expert_weak", "weak, experts shared out"},
                                                       {"expert_strong", "strong, experts shared out"}};
  for (const auto& [key, name] : lines) {
    if (!study.contains(key)) continue;
    const auto efficiency = [&](const Json& point) { return number_at(point, "efficiency", source); };
    chart.lines.push_back({.name = name,
                           .color = chart.lines.size(),
                           .points = points_of(study.at(key), source, efficiency),
                           .has_markers = true});
  }
  return draw_chart(chart);
}

std::string seconds_chart(const Json& study, const char* kind, const std::string& source) {
  if (!study.contains(kind)) return "";
  auto chart = new_chart(join("Where a step's time goes, ", kind, " scaling"), "seconds", /*is_fraction=*/false);
  size_t color = 2;
  for (const char* part : {"compute", "waiting", "memory", "update", "wire"}) {
    const auto seconds = [&](const Json& point) {
      SY_CHECK(point.contains("seconds"), source, ": expected \"seconds\" in every point of a simulated study");
      return number_at(point.at("seconds"), part, source);
    };
    chart.lines.push_back(
        {.name = part, .color = color++, .points = points_of(study.at(kind), source, seconds), .has_markers = true});
  }
  return draw_chart(chart);
}

}  // namespace

std::string draw_scaling(const Json& document, const std::string& source) {
  SY_CHECK(document.is_object(), source, ": expected an object with \"simulated\" or \"measured\"");
  std::string figures, about;
  if (document.contains("measured") && document.at("measured").is_object())
    figures += efficiency_chart(document.at("measured"), "Measured, processes of one thread", source);
  if (document.contains("simulated") && document.at("simulated").is_object()) {
    const auto& study = document.at("simulated");
    const std::string model = study.value("model", std::string("model"));
    figures += efficiency_chart(study, join("Simulated, ", model), source);
    figures += seconds_chart(study, "weak", source) + seconds_chart(study, "strong", source);
    about = join("The simulation replays ", study.value("replayed_steps", 0),
                 " steps of a run, their speed and their routing, on the fastest layout of each number of devices. "
                 "Waiting is for the rank whose experts got the most rows.");
  }
  if (figures.empty()) return "";
  return "<h2>Scaling</h2>\n<p class=quiet>Weak: the batch grows with the devices. Strong: it stays. " +
         escape_html(about) + "</p>\n<div class=grid-2>\n" + figures + "</div>\n";
}

}  // namespace switchyard
