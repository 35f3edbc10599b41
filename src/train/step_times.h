// How long a step of each contender takes, measured in turn on a quiet machine: the time axis of a ladder, whose losses
// may have been computed whenever.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train/ladder.h"

namespace switchyard {

struct StepTime {
  std::string rung, contender;
  double median = 0.0, lowest = 0.0, highest = 0.0;  // seconds a step
};

// Each contender of each rung at its middle rate, `rounds` rounds of `steps` steps each after one that warms up, in
// turn within a rung. Works in a folder of its own in `out`, which it removes.
std::vector<StepTime> measure_step_times(const Ladder& ladder, const std::filesystem::path& out, int64_t rounds,
                                         int64_t steps, at::Device device, bool quiet);

Json to_json(const std::vector<StepTime>& times);

}  // namespace switchyard
