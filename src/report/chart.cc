#include "report/chart.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "base/error.h"
#include "report/html.h"

namespace switchyard {
namespace {

constexpr double kWidth = 560, kHeight = 300;
constexpr double kLeft = 62, kRight = 14, kTop = 14, kBottom = 46;
constexpr size_t kMaxPoints = 400;

using Points = std::vector<std::pair<double, double>>;

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool is_empty() const { return low > high; }
  void widen() {  // a single value still needs an axis
    if (high > low) return;
    const double margin = low == 0 ? 1.0 : 0.1 * std::abs(low);
    low -= margin;
    high += margin;
  }
};

struct Scale {
  Range x, y;
  double at_x(double value) const { return kLeft + (value - x.low) / (x.high - x.low) * (kWidth - kLeft - kRight); }
  double at_y(double value) const {
    return kHeight - kBottom - (value - y.low) / (y.high - y.low) * (kHeight - kTop - kBottom);
  }
};

std::string printed(const char* format, double value) {
  char text[32];
  std::snprintf(text, sizeof text, format, value);
  return text;
}
std::string fixed(double value) { return printed("%.2f", value); }
std::string exact(double value) { return printed("%.9g", value); }

Points averaged(const Points& points) {
  if (points.size() <= kMaxPoints) return points;
  Points means;
  for (size_t span = 0; span < kMaxPoints; ++span) {
    const size_t begin = span * points.size() / kMaxPoints, end = (span + 1) * points.size() / kMaxPoints;
    double x = 0, y = 0;
    for (size_t n = begin; n < end; ++n) {
      x += points[n].first;
      y += points[n].second;
    }
    means.emplace_back(x / static_cast<double>(end - begin), y / static_cast<double>(end - begin));
  }
  return means;
}

Scale scale_of(const Chart& chart) {
  Scale scale;
  for (const auto& line : chart.lines)
    for (const auto& [x, y] : line.points) scale.x.add(x);
  const double start = scale.x.low + chart.unscaled_start * (scale.x.high - scale.x.low);
  for (const auto& line : chart.lines)
    for (const auto& [x, y] : line.points)
      if (!line.is_faint && x >= start) scale.y.add(y);
  if (scale.x.is_empty() || scale.y.is_empty()) return scale;
  if (chart.y_is_fraction) scale.y.add(0.0);
  scale.x.widen();
  scale.y.widen();
  const double margin = 0.06 * (scale.y.high - scale.y.low);
  scale.y.high += margin;
  if (scale.y.low != 0.0) scale.y.low -= margin;
  return scale;
}

// Seconds get ticks in the unit that suits the range.
double seconds_unit(double longest) {
  return longest < 180 ? 1.0 : longest < 3 * 3600 ? 60.0 : longest < 3 * 86400 ? 3600.0 : 86400.0;
}
const char* seconds_unit_name(double unit) {
  return unit == 1.0 ? "s" : unit == 60.0 ? "min" : unit == 3600.0 ? "h" : "days";
}

std::string y_text(const Chart& chart, double value) {
  return chart.y_is_fraction ? format_number(100.0 * value, 3) + "%" : format_number(value, 5);
}

std::string draw_axes(const Chart& chart, const Scale& scale) {
  std::string svg;
  for (const double value : ticks(scale.y.low, scale.y.high, 6)) {
    const auto y = fixed(scale.at_y(value));
    svg += join("<line class=grid x1=", kLeft, " x2=", kWidth - kRight, " y1=", y, " y2=", y,
                " /><text class=tick text-anchor=end x=", kLeft - 8, " y=", y, " dy=.32em>", y_text(chart, value),
                "</text>");
  }
  const double unit = chart.x_is_seconds ? seconds_unit(scale.x.high) : 1.0;
  for (const double value : ticks(scale.x.low / unit, scale.x.high / unit, 6)) {
    if (chart.x_is_log2 && value != std::round(value)) continue;
    const auto x = fixed(scale.at_x(value * unit));
    svg += join("<line class=axis x1=", x, " x2=", x, " y1=", kHeight - kBottom, " y2=", kHeight - kBottom + 4,
                " /><text class=tick text-anchor=middle x=", x, " y=", kHeight - kBottom + 18, ">",
                format_number(chart.x_is_log2 ? std::exp2(value) : value, 4), "</text>");
  }
  svg += join("<line class=axis x1=", kLeft, " x2=", kWidth - kRight, " y1=", kHeight - kBottom,
              " y2=", kHeight - kBottom, " />");
  const std::string x_unit = chart.x_is_seconds ? join(" (", seconds_unit_name(unit), ")") : "";
  svg += join("<text class=label text-anchor=middle x=", (kLeft + kWidth - kRight) / 2, " y=", kHeight - 8, ">",
              escape_html(chart.x_label + x_unit), "</text>");
  svg += join("<text class=label text-anchor=middle transform='translate(14 ", (kTop + kHeight - kBottom) / 2,
              ") rotate(-90)'>", escape_html(chart.y_label), "</text>");
  return svg;
}

std::string draw_line(const ChartLine& line, const Scale& scale) {
  const std::string color = join("line-", line.color % kNumLineColors);
  std::string points, markers;
  for (const auto& [x, y] : averaged(line.points)) {
    const std::string at_x = fixed(scale.at_x(x)),
                      at_y = fixed(std::clamp(scale.at_y(y), kTop - 40.0, kHeight - kBottom + 40.0));
    points += (points.empty() ? "" : " ") + at_x + "," + at_y;
    if (line.has_markers && line.points.size() <= 60)
      markers += join("<circle class='marker ", color, "' cx=", at_x, " cy=", at_y, " r=2.6 />");
  }
  const std::string name = line.is_faint ? "" : join(" data-name=\"", escape_html(line.name), "\"");
  return join("<polyline class='", line.is_faint ? "faint " : "line ", color, "'", name, " points='", points, "'/>",
              markers);
}

std::string draw_legend(const Chart& chart) {
  std::string legend;
  for (const auto& line : chart.lines)
    if (!line.is_faint && !line.points.empty())
      legend +=
          join("<span><i class='key line-", line.color % kNumLineColors, "'></i>", escape_html(line.name), "</span>");
  return "<div class=legend>" + legend + "</div>";
}

}  // namespace

std::vector<double> ticks(double low, double high, int count) {
  const double raw = (high - low) / std::max(1, count);
  if (!(raw > 0) || !std::isfinite(raw)) return {low};
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * power >= raw) step = factor * power;
  std::vector<double> positions;
  for (double n = std::ceil(low / step - 1e-9); n <= std::floor(high / step + 1e-9) && positions.size() < 100; ++n)
    positions.push_back(n * step + 0.0);  // + 0.0: never -0
  return positions;
}

std::vector<std::pair<double, double>> smooth(const Points& points, size_t window) {
  std::vector<double> sums = {0.0};
  for (const auto& [x, y] : points) sums.push_back(sums.back() + y);
  Points smoothed;
  for (size_t n = 0; n < points.size(); ++n) {
    const size_t reach =
        std::min({window / 2, n, points.size() - 1 - n});  // symmetric, so that ends are not pulled sideways
    smoothed.emplace_back(points[n].first,
                          (sums[n + reach + 1] - sums[n - reach]) / static_cast<double>(2 * reach + 1));
  }
  return smoothed;
}

std::string draw_chart(const Chart& chart) {
  const Scale scale = scale_of(chart);
  if (scale.x.is_empty() || scale.y.is_empty()) return "";
  std::string svg = join("<svg class=chart viewBox='0 0 ", kWidth, " ", kHeight, "' role=img aria-label=\"",
                         escape_html(chart.title), "\" data-plot='", kLeft, " ", kWidth - kRight, " ", kTop, " ",
                         kHeight - kBottom, "' data-range='", exact(scale.x.low), " ", exact(scale.x.high), " ",
                         exact(scale.y.low), " ", exact(scale.y.high), "' data-kind='",
                         chart.x_is_seconds ? "seconds"
                         : chart.x_is_log2  ? "log2"
                                            : "steps",
                         " ", chart.y_is_fraction ? "fraction" : "number", "'>");
  svg += draw_axes(chart, scale);
  const std::string plot =
      join(kLeft, " ", kTop - 4, " ", kWidth - kLeft - kRight + 4, " ", kHeight - kTop - kBottom + 4);
  svg += join("<svg x=", kLeft, " y=", kTop - 4, " width=", kWidth - kLeft - kRight + 4,
              " height=", kHeight - kTop - kBottom + 4, " viewBox='", plot, "'>");  // cuts off what leaves the plot
  for (const bool faint : {true, false})
    for (const auto& line : chart.lines)
      if (line.is_faint == faint && !line.points.empty()) svg += draw_line(line, scale);
  svg += "</svg></svg>";
  return "<figure><figcaption>" + escape_html(chart.title) + "</figcaption>" + svg + draw_legend(chart) + "</figure>\n";
}

}  // namespace switchyard
