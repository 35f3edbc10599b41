// Expert load over time as a picture: one row an expert, one column a span of steps.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "report/run_log.h"

namespace switchyard {

// An 8-bit BMP of `levels` [rows][columns], 0 to 255, through a palette of 256 colours {red, green, blue}.
std::string encode_bmp(const std::vector<std::vector<uint8_t>>& levels,
                       const std::vector<std::array<uint8_t, 3>>& palette);

std::string encode_base64(const std::string& bytes);

// Inline SVG. Colour is the load over the even share 1 / num_experts: blue below, near white at 1, red at 2 and above.
// No history gives "".
std::string draw_heat_map(const std::string& title, const LoadHistory& history);

// The colour scale, once a page.
std::string draw_heat_map_key();

}  // namespace switchyard
