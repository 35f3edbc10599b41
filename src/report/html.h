// Text for HTML: escaping, and numbers as people write them.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

std::string escape_html(std::string_view text);  // & < > " ' as entities; valid in text and in quoted attributes

std::string format_number(double value, int digits = 4);  // "0.001235", "12.3k", "4.5M"; at most `digits` significant
std::string format_seconds(double seconds);               // "45 s", "12.5 min", "3.2 h", "2.1 d"

}  // namespace switchyard
