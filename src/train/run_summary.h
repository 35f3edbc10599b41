// What a run says of itself at its start and at its end.
#pragma once

#include <string>
#include <vector>

#include "train/trainer.h"

namespace switchyard {

// 1234567 -> "1.23 M".
std::string short_count(double count);

// Model and parameters, data, how it computes, and where it writes: one line each.
std::vector<std::string> describe_start(const Trainer& trainer);

// Steps and time of this process, losses, and the checkpoint to go on with.
std::vector<std::string> describe_end(const Trainer& trainer, int64_t first_step, double seconds);

}  // namespace switchyard
