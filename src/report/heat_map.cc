#include "report/heat_map.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "report/chart.h"
#include "report/html.h"

namespace switchyard {
namespace {

constexpr double kWidth = 560, kHeight = 190;
constexpr double kLeft = 62, kRight = 14, kTop = 6, kBottom = 40;
constexpr double kHottest = 2.0;  // times the even share

void append_little_endian(std::string& out, uint32_t value, int bytes) {
  for (int byte = 0; byte < bytes; ++byte) out += static_cast<char>(value >> (8 * byte) & 0xFF);
}

// Blue to near white to red, in even steps of lightness.
std::vector<std::array<uint8_t, 3>> load_palette() {
  constexpr std::array<std::array<double, 3>, 5> kStops = {
      {{33, 84, 148}, {122, 172, 210}, {244, 243, 239}, {229, 147, 106}, {160, 40, 48}}};
  std::vector<std::array<uint8_t, 3>> palette;
  for (int level = 0; level < 256; ++level) {
    const double place = level / 255.0 * (kStops.size() - 1);
    const auto stop = std::min<size_t>(static_cast<size_t>(place), kStops.size() - 2);
    const double weight = place - static_cast<double>(stop);
    std::array<uint8_t, 3> color{};
    for (size_t channel = 0; channel < 3; ++channel)
      color[channel] =
          static_cast<uint8_t>(std::lround((1 - weight) * kStops[stop][channel] + weight * kStops[stop + 1][channel]));
    palette.push_back(color);
  }
  return palette;
}

uint8_t level_of(double relative_load) {
  return static_cast<uint8_t>(std::lround(255.0 * std::clamp(relative_load / kHottest, 0.0, 1.0)));
}

std::string picture(const std::vector<std::vector<uint8_t>>& levels, double x, double y, double width, double height) {
  return join("<image class=pixels preserveAspectRatio=none x=", x, " y=", y, " width=", width, " height=", height,
              " href='data:image/bmp;base64,", encode_base64(encode_bmp(levels, load_palette())), "'/>");
}

}  // namespace

std::string encode_bmp(const std::vector<std::vector<uint8_t>>& levels,
                       const std::vector<std::array<uint8_t, 3>>& palette) {
  const auto rows = static_cast<uint32_t>(levels.size()),
             columns = static_cast<uint32_t>(levels.empty() ? 0 : levels.front().size());
  const uint32_t stride = (columns + 3) / 4 * 4, header = 14 + 40 + 4 * 256;
  std::string bmp = "BM";
  append_little_endian(bmp, header + stride * rows, 4);
  append_little_endian(bmp, 0, 4);
  append_little_endian(bmp, header, 4);
  append_little_endian(bmp, 40, 4);  // BITMAPINFOHEADER
  append_little_endian(bmp, columns, 4);
  append_little_endian(bmp, rows, 4);
  append_little_endian(bmp, 1, 2);
  append_little_endian(bmp, 8, 2);
  for (int field = 0; field < 6; ++field)
    append_little_endian(bmp, field == 4 ? 256 : 0, 4);  // uncompressed, 256 colours
  for (size_t color = 0; color < 256; ++color) {
    const auto [red, green, blue] = color < palette.size() ? palette[color] : std::array<uint8_t, 3>{};
    append_little_endian(bmp, uint32_t{blue} | uint32_t{green} << 8 | uint32_t{red} << 16, 4);
  }
  for (size_t row = rows; row-- > 0;) {  // bottom row first
    for (const uint8_t level : levels[row]) bmp += static_cast<char>(level);
    bmp.append(stride - columns, '\0');
  }
  return bmp;
}

std::string encode_base64(const std::string& bytes) {
  static constexpr char kLetters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    uint32_t group = 0;
    for (size_t n = 0; n < 3; ++n)
      group = group << 8 | (at + n < bytes.size() ? static_cast<uint8_t>(bytes[at + n]) : 0u);
    for (size_t n = 0; n < 4; ++n) text += at + n > bytes.size() ? '=' : kLetters[group >> (18 - 6 * n) & 63];
  }
  return text;
}

std::string draw_heat_map(const std::string& title, const LoadHistory& history) {
  if (history.loads.empty() || history.loads.front().empty()) return "";
  const size_t num_experts = history.loads.front().size(), num_spans = history.loads.size();
  std::vector<std::vector<uint8_t>> levels(num_experts, std::vector<uint8_t>(num_spans));
  for (size_t span = 0; span < num_spans; ++span)
    for (size_t expert = 0; expert < std::min(num_experts, history.loads[span].size()); ++expert)
      levels[expert][span] = level_of(history.loads[span][expert] * static_cast<double>(num_experts));
  const double width = kWidth - kLeft - kRight, height = kHeight - kTop - kBottom;
  std::string svg = join("<svg class=heat viewBox='0 0 ", kWidth, " ", kHeight, "' role=img aria-label=\"",
                         escape_html(title), "\">");
  svg += picture(levels, kLeft, kTop, width, height);
  for (const double expert : ticks(0, static_cast<double>(num_experts - 1), 4)) {
    if (expert != std::floor(expert)) continue;
    svg += join("<text class=tick text-anchor=end dy=.32em x=", kLeft - 6,
                " y=", kTop + (expert + 0.5) / static_cast<double>(num_experts) * height, ">", expert, "</text>");
  }
  const double last = history.last_step.back();
  for (const double step : ticks(0, last, 6))
    svg += join("<text class=tick text-anchor=middle x=", kLeft + (last > 0 ? step / last : 0) * width,
                " y=", kHeight - kBottom + 15, ">", format_number(step), "</text>");
  svg += join("<text class=label text-anchor=middle x=", kLeft + width / 2, " y=", kHeight - 6, ">step</text>",
              "<text class=label text-anchor=middle transform='translate(14 ", kTop + height / 2,
              ") rotate(-90)'>expert</text></svg>");
  return "<figure><figcaption>" + escape_html(title) + "</figcaption>" + svg + "</figure>\n";
}

std::string draw_heat_map_key() {
  std::vector<uint8_t> ramp;
  for (int level = 0; level < 256; ++level) ramp.push_back(static_cast<uint8_t>(level));
  std::string svg = "<svg class=heat-key viewBox='-10 0 320 34' role=img aria-label='colour scale'>" +
                    picture({ramp}, 10, 4, 280, 10);
  for (const auto& [x, text] : {std::pair{10, "idle"}, {80, "half"}, {150, "even share"}, {220, "1.5x"}, {290, "2x +"}})
    svg += join("<text class=tick text-anchor=middle x=", x, " y=29>", text, "</text>");
  return svg + "</svg>";
}

}  // namespace switchyard
