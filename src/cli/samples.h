// Blanks cut into held-out sentences, and what trained models put into them: the part of a comparison that people read.
#pragma once

#include <string>
#include <vector>

#include "base/config.h"
#include "train/comparison.h"

namespace switchyard {

// `count` sentences of the first run's held-out text, two blanks each, chosen by a fixed seed. Each entry: {"text" (the
// sentence), "prompt" (with <extra_id_N>), "filled": {run name: the prompt filled in by that run's weights, greedily}}.
Json sample_blanks(const std::vector<ComparedRun>& runs, int64_t count);

void print_samples(const Json& samples);

}  // namespace switchyard
