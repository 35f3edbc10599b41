#include "report/html.h"

#include <cmath>
#include <cstdio>

namespace switchyard {
namespace {

std::string significant(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*g", digits, value);
  return text;
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string escaped;
  for (const char letter : text) {
    switch (letter) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += letter;
    }
  }
  return escaped;
}

std::string format_number(double value, int digits) {
  const double size = std::abs(value);
  if (size >= 1e13 || !std::isfinite(value)) return significant(value, digits);
  for (const auto& [unit, letter] : {std::pair{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e4, "k"}})
    if (size >= unit) return significant(value / (unit == 1e4 ? 1e3 : unit), digits) + letter;
  if (size >= 1000) return significant(value, std::max(4, digits));
  return significant(value, digits);
}

std::string format_seconds(double seconds) {
  if (seconds < 120) return significant(seconds, seconds < 10 ? 2 : 3) + " s";
  if (seconds < 7200) return significant(seconds / 60, 3) + " min";
  if (seconds < 172800) return significant(seconds / 3600, 3) + " h";
  return significant(seconds / 86400, 3) + " d";
}

}  // namespace switchyard
