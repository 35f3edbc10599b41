// A layout as a picture, after the paper's figure of data, model and expert partitioning: for each device, which part
// of a dense weight, of the experts and of the batch it has.
#pragma once

#include <string>

#include "plan/workload.h"

namespace switchyard {

// The most devices that are drawn; of a larger layout the first ones.
inline constexpr int64_t kMostDrawnDevices = 64;

// One SVG, light and dark. Devices are squares, in blocks of one data rank, in them expert by expert. In each square
// the outline is the whole (a matrix, all experts side by side, all sequences one below the other), what is filled is
// the device's part; equal parts have equal colours. Every filled rectangle says what it is in data-panel, data-rank
// and data-rows, data-columns ("begin end" in values, experts or sequences). Throws Error as shards_of() does.
std::string draw_partitioning(const Workload& workload, const Layout& layout);

}  // namespace switchyard
