// Bars as inline SVG, for what has names or classes in place of an x axis.
#pragma once

#include <string>
#include <vector>

namespace switchyard {

struct Bar {
  std::string label;  // below it
  std::string about;  // shown where the pointer rests on it
  double value = 0.0;
};

struct BarChart {
  std::string title, x_label, y_label;
  std::vector<Bar> bars;  // from left to right; negative ones hang
};

// As wide as its bars need. Without bars: "".
std::string draw_bars(const BarChart& chart);

}  // namespace switchyard
