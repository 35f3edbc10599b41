#include "report/bars.h"

#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "report/chart.h"
#include "report/html.h"

namespace switchyard {
namespace {

constexpr double kHeight = 300, kLeft = 62, kRight = 14, kTop = 10, kBottom = 64;
constexpr double kLeastWidth = 560, kLeastBar = 11;  // labels of many bars stand upright

std::string fixed(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", value);
  return text;
}

}  // namespace

std::string draw_bars(const BarChart& chart) {
  if (chart.bars.empty()) return "";
  double low = 0.0, high = 0.0;
  for (const auto& bar : chart.bars) {
    low = std::min(low, bar.value);
    high = std::max(high, bar.value);
  }
  if (high == low) high = low + 1.0;
  const double margin = 0.06 * (high - low);
  high += margin;
  if (low < 0.0) low -= margin;
  const auto count = static_cast<double>(chart.bars.size());
  const double width = std::max(kLeastWidth, kLeft + kRight + kLeastBar * count);
  const double pitch = (width - kLeft - kRight) / count;
  const auto at_y = [&](double value) {
    return kHeight - kBottom - (value - low) / (high - low) * (kHeight - kTop - kBottom);
  };
  std::string svg;
  for (const double value : ticks(low, high, 6))
    svg += join("<line class=grid x1=", kLeft, " x2=", width - kRight, " y1=", fixed(at_y(value)),
                " y2=", fixed(at_y(value)), " /><text class=tick text-anchor=end x=", kLeft - 8,
                " y=", fixed(at_y(value)), " dy=.32em>", format_number(value, 4), "</text>");
  for (size_t n = 0; n < chart.bars.size(); ++n) {
    const auto& bar = chart.bars[n];
    const double x = kLeft + pitch * static_cast<double>(n), middle = x + pitch / 2;
    svg += join("<g><title>", escape_html(bar.about), "</title><rect class='marker line-", bar.value < 0.0 ? 1 : 0,
                "' x=", fixed(x + 0.1 * pitch), " width=", fixed(0.8 * pitch),
                " y=", fixed(at_y(std::max(0.0, bar.value))), " height=", fixed(at_y(0.0) - at_y(std::abs(bar.value))),
                " /><text class=tick ");
    svg += pitch < 40 ? join("text-anchor=end transform='translate(", fixed(middle + 4), " ", kHeight - kBottom + 8,
                             ") rotate(-90)'>")
                      : join("text-anchor=middle x=", fixed(middle), " y=", kHeight - kBottom + 18, ">");
    svg += escape_html(bar.label) + "</text></g>";
  }
  svg += join("<line class=axis x1=", kLeft, " x2=", width - kRight, " y1=", fixed(at_y(0.0)), " y2=", fixed(at_y(0.0)),
              " /><text class=label text-anchor=middle x=", (kLeft + width - kRight) / 2, " y=", kHeight - 8, ">",
              escape_html(chart.x_label), "</text><text class=label text-anchor=middle transform='translate(14 ",
              (kTop + kHeight - kBottom) / 2, ") rotate(-90)'>", escape_html(chart.y_label), "</text>");
  return join("<figure><figcaption>", escape_html(chart.title), "</figcaption><svg class=bars style='min-width:", width,
              "px' viewBox='0 0 ", width, " ", kHeight, "' role=img aria-label=\"", escape_html(chart.title), "\">",
              svg, "</svg></figure>\n");
}

}  // namespace switchyard
