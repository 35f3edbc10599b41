// A run key of one's own: a rate that begins anew every so many steps (Loshchilov and Hutter 2017).
#pragma once

#include <cmath>
#include <numbers>

#include "base/config.h"
#include "base/error.h"

namespace switchyard::examples {

struct RestartConfig {
  int64_t cycle_steps = 0;      // 0: no restarts
  double least_fraction = 0.1;  // of the rate, at a cycle's end

  template <class Self, class Field>
  static void visit(Self& self, Field&& field) {
    field("cycle_steps", self.cycle_steps, "steps of a cycle, after which the rate begins anew; 0: none");
    field("least_fraction", self.least_fraction, "share of the rate that is left at a cycle's end");
  }
};

// Throws Error naming the key.
inline void validate(const RestartConfig& config) {
  SY_CHECK(config.cycle_steps >= 0, "optimizer.cycle_steps = ", config.cycle_steps, ": expected 0 (none) or more");
  SY_CHECK(config.least_fraction >= 0.0 && config.least_fraction <= 1.0,
           "optimizer.least_fraction = ", config.least_fraction, ": expected 0 to 1");
}

// Factor of the rate at `step`, from 1.
inline double restart_factor(const RestartConfig& config, int64_t step) {
  if (config.cycle_steps == 0) return 1.0;
  const double done = static_cast<double>((step - 1) % config.cycle_steps) / static_cast<double>(config.cycle_steps);
  return config.least_fraction + (1.0 - config.least_fraction) * 0.5 * (1.0 + std::cos(std::numbers::pi * done));
}

}  // namespace switchyard::examples
