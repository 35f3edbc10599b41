#include "report/parts_section.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "report/bars.h"
#include "report/html.h"
#include "report/summary.h"

namespace switchyard {
namespace {

std::string about(const PartComparison& part) {
  return join(part.name, ": dense ", format_number(part.dense_loss), ", sparse ", format_number(part.sparse_loss),
              " nats per token; the loss of both after ", format_number(part.dense_steps), " and ",
              format_number(part.sparse_steps), " steps, ", format_number(part.speed_up(), 3), "x");
}

// A width of classes of which the values fill about fifteen: 1, 2 or 5 times a power of ten.
double class_width(double low, double high) {
  const double raw = std::max((high - low) / 15.0, 1e-3), power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= raw) return factor * power;
  return 10.0 * power;
}

std::vector<Bar> histogram(const std::vector<PartComparison>& parts) {
  const auto [least, most] = std::minmax_element(
      parts.begin(), parts.end(), [](const auto& a, const auto& b) { return a.speed_up() < b.speed_up(); });
  const double width = class_width(least->speed_up(), most->speed_up());
  const double begin = std::floor(least->speed_up() / width);
  std::vector<Bar> bars;
  for (const auto& part : parts) {
    const auto place = static_cast<size_t>(std::floor(part.speed_up() / width) - begin);
    if (bars.size() <= place) bars.resize(place + 1);
    bars[place].value += 1.0;
    bars[place].about += (bars[place].about.empty() ? "" : ", ") + part.name;
  }
  for (size_t n = 0; n < bars.size(); ++n)
    bars[n].label = format_number((begin + static_cast<double>(n)) * width, 3) + "x";
  return bars;
}

}  // namespace

std::string draw_parts(const std::vector<RunLog>& runs) {
  const auto parts = compare_parts(runs);
  if (parts.empty()) return "";
  BarChart gains{.title = "What the sparse model gains, by part",
                 .x_label = "held-out text",
                 .y_label = "nats per token",
                 .bars = {}};
  double gained = 0.0, speed_ups = 0.0;
  int64_t better = 0;
  for (const auto& part : parts) {
    gains.bars.push_back({.label = part.name, .about = about(part), .value = part.improvement()});
    gained += part.improvement() / static_cast<double>(parts.size());
    speed_ups += part.speed_up() / static_cast<double>(parts.size());
    better += part.improvement() > 0 ? 1 : 0;
  }
  const BarChart speeds{.title = "Steps of the dense model over steps of the sparse one to the same loss",
                        .x_label = "speed-up, from",
                        .y_label = "held-out texts",
                        .bars = histogram(parts)};
  return join("<h2>By part</h2>\n<p class=quiet>Of ", parts.size(), " held-out texts the sparse model is better on ",
              better, ". Mean improvement ", format_number(gained, 3), " nats per token, mean speed-up ",
              format_number(speed_ups, 3), "x. Losses are means over the runs of a kind.</p>\n<div class=scroll>",
              draw_bars(gains), "</div>\n<div class=grid-2>\n", draw_bars(speeds), "</div>\n");
}

Json parts_to_json(const std::vector<RunLog>& runs) {
  Json list = Json::array();
  for (const auto& part : compare_parts(runs))
    list.push_back({{"name", part.name},
                    {"dense_loss", part.dense_loss},
                    {"sparse_loss", part.sparse_loss},
                    {"improvement", part.improvement()},
                    {"dense_steps", part.dense_steps},
                    {"sparse_steps", part.sparse_steps},
                    {"speed_up", part.speed_up()}});
  return list;
}

}  // namespace switchyard
