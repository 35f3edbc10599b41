#include "cli/timed_steps.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randint.h>

#include "base/clock.h"
#include "model/loss.h"
#include "train/trainer.h"

namespace switchyard {

TimedSteps timed_steps(const ModelConfig& config, at::ScalarType dtype, int64_t batch, int64_t encoder_length,
                       int64_t decoder_length, int64_t repeats) {
  auto weights = initialize(config, 0);
  const auto parameters = list_parameters(config, weights);
  for (const auto& parameter : parameters) parameter.tensor->requires_grad_(!parameter.spec.is_buffer());
  const OptimizerConfig optimizer_config;
  Optimizer optimizer(optimizer_config, optimized_parameters(parameters, optimizer_config));
  const auto ids = [&](int64_t length) { return at::randint(3, config.vocab_size, {batch, length}, at::kLong); };
  const auto labels = ids(decoder_length);
  const LossInput input{{ids(encoder_length)}, {shift_right(labels)}, labels};
  TimedSteps timed;
  for (int64_t step = 1; step <= repeats + 2; ++step) {
    const double start = steady_seconds();
    const auto cast = cast_weights(config, weights, dtype);
    const auto loss = compute_loss(config, cast, input, {.training = true, .step = step}, {.z_loss = 1e-4});
    loss.total.backward();
    std::vector<at::Tensor> gradients;
    for (const auto& parameter : parameters) gradients.push_back(parameter.tensor->grad());
    optimizer.step_(gradients, step, 1.0);
    for (const auto& parameter : parameters) parameter.tensor->mutable_grad() = at::Tensor();
    timed.last_loss = loss.total.item<double>();
    if (step > 2) timed.seconds.push_back(steady_seconds() - start);
  }
  return timed;
}

}  // namespace switchyard
