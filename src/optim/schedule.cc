#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "optim/optimizer.h"

namespace switchyard {
namespace {

// 0 at the end of the linear warmup, 1 from decay_steps on.
double decay_progress(const OptimizerConfig& config, int64_t step) {
  SY_CHECK(config.decay_steps > 0, "optimizer.schedule = \"", config.schedule, "\" needs optimizer.decay_steps");
  const auto length = static_cast<double>(std::max<int64_t>(1, config.decay_steps - config.linear_warmup_steps));
  return std::clamp(static_cast<double>(step - config.linear_warmup_steps) / length, 0.0, 1.0);
}

// Flat up to the last cooldown_fraction of decay_steps, then linear.
double trapezoid_factor(const OptimizerConfig& config, int64_t step) {
  SY_CHECK(config.decay_steps > 0, "optimizer.schedule = \"trapezoid\" needs optimizer.decay_steps");
  const auto end = static_cast<double>(config.decay_steps);
  const double cooldown = std::max(1.0, config.cooldown_fraction * end);
  const double left = std::clamp((end - static_cast<double>(step)) / cooldown, 0.0, 1.0);
  return config.final_fraction + (1.0 - config.final_fraction) * left;
}

double schedule_factor(const OptimizerConfig& config, int64_t step) {
  if (config.schedule == "constant") return 1.0;
  if (config.schedule == "inverse_sqrt") {
    const auto flat = static_cast<double>(std::max<int64_t>(1, config.warmup_steps));
    return std::sqrt(flat / std::max(static_cast<double>(step), flat));
  }
  if (config.schedule == "trapezoid") return trapezoid_factor(config, step);
  const double progress = decay_progress(config, step);
  const double left =
      config.schedule == "linear" ? 1.0 - progress : 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
  return config.final_fraction + (1.0 - config.final_fraction) * left;
}

}  // namespace

double learning_rate(const OptimizerConfig& config, int64_t step) {
  double rate = config.learning_rate * schedule_factor(config, step);
  if (step < config.linear_warmup_steps)
    rate *= static_cast<double>(step) / static_cast<double>(config.linear_warmup_steps);
  return rate;
}

}  // namespace switchyard
