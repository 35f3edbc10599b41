// Training steps of a model of random weights on random ids, timed one by one.
#pragma once

#include <vector>

#include "train/step.h"

namespace switchyard {

struct TimedSteps {
  std::vector<double> seconds;            // of each but the first two, which warm up
  std::vector<double> optimizer_seconds;  // of these
  double last_loss = 0.0;
};

// `repeats` steps of Adafactor on `batch` sequences of encoder_length + decoder_length tokens.
TimedSteps timed_steps(const ModelConfig& config, const StepOptions& options, int64_t batch, int64_t encoder_length,
                       int64_t decoder_length, int64_t repeats);

}  // namespace switchyard
