// Line charts as inline SVG. Colours and fonts are classes (`line-0`, `axis`, ...) that the page's style sheet defines,
// so that one chart serves light and dark.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace switchyard {

constexpr size_t kNumLineColors = 8;  // classes line-0 ... line-7

struct ChartLine {
  std::string name;
  size_t color = 0;                               // modulo kNumLineColors
  std::vector<std::pair<double, double>> points;  // x ascending
  bool is_faint = false;                          // behind the others, left out of legend, range and hover
  bool has_markers = false;
};

struct Chart {
  std::string title, x_label, y_label;
  std::vector<ChartLine> lines;
  bool x_is_seconds = false;    // ticks as times
  bool x_is_log2 = false;       // x is log2 of what ticks show
  bool y_is_fraction = false;   // ticks as percentages, from 0
  double unscaled_start = 0.0;  // values in this first share of the x axis may leave the plot
};

// Lines with more points than can be seen are averaged over spans of neighbours. A chart without points gives "".
std::string draw_chart(const Chart& chart);

// Round tick positions within [low, high], about `count` of them: steps of 1, 2 or 5 times a power of ten.
std::vector<double> ticks(double low, double high, int count);

// The mean of each point's neighbourhood of `window` points.
std::vector<std::pair<double, double>> smooth(const std::vector<std::pair<double, double>>& points, size_t window);

}  // namespace switchyard
