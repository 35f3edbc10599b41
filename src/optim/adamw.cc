#include "optim/adamw.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "optim/update_kernels.h"

namespace switchyard {
namespace {

bool has_kernel(const at::Tensor& tensor) {
  return tensor.is_cpu() && tensor.scalar_type() == at::kFloat && tensor.is_contiguous();
}

void update_with_aten_(const at::Tensor& weights, const at::Tensor& m, const at::Tensor& v, const at::Tensor& gradient,
                       const kernels::AdamWStep& step) {
  const auto g = gradient.to(weights.scalar_type()) * step.gradient_scale;
  m.mul_(step.beta1).add_(g, 1.0 - step.beta1);
  v.mul_(step.beta2).addcmul_(g, g, 1.0 - step.beta2);
  const auto denominator = v.sqrt() / std::sqrt(step.correction2) + step.epsilon;
  weights.mul_(step.shrink).sub_(m / denominator, step.rate / step.correction1);
}

// One tensor's, or one expert's.
void update_(const OptimizerConfig& config, const at::Tensor& weights, const at::Tensor& m, const at::Tensor& v,
             const at::Tensor& gradient, kernels::AdamWStep step) {
  if (config.adamw_scale_by_parameter)
    step.rate *= std::max(config.epsilon2, weights.square().mean().sqrt().item<double>());
  if (has_kernel(weights) && has_kernel(gradient))
    kernels::adamw_update(weights.mutable_data_ptr<float>(), gradient.const_data_ptr<float>(),
                          m.mutable_data_ptr<float>(), v.mutable_data_ptr<float>(), weights.numel(), step);
  else
    update_with_aten_(weights, m, v, gradient, step);
}

}  // namespace

SlotTensors adamw_slots(const OptimizedParameter& parameter) {
  const auto& tensor = parameter.tensor;
  return {{"m", at::zeros(tensor.sizes(), tensor.options())}, {"v", at::zeros(tensor.sizes(), tensor.options())}};
}

void adamw_step_(const OptimizerConfig& config, const std::vector<OptimizedParameter>& parameters,
                 const std::vector<SlotTensors>& slots, const std::vector<at::Tensor>& gradients, int64_t step,
                 double gradient_scale) {
  for (size_t index = 0; index < parameters.size(); ++index) {
    const double rate = learning_rate(config, step) * parameters[index].rate_scale;
    const kernels::AdamWStep numbers{.rate = rate,
                                     .shrink = parameters[index].decays ? 1.0 - rate * config.weight_decay : 1.0,
                                     .gradient_scale = gradient_scale,
                                     .beta1 = config.beta1,
                                     .beta2 = config.beta2,
                                     .epsilon = config.epsilon,
                                     .correction1 = 1.0 - std::pow(config.beta1, static_cast<double>(step)),
                                     .correction2 = 1.0 - std::pow(config.beta2, static_cast<double>(step))};
    const auto& weights = parameters[index].tensor;
    const auto &m = slots[index].at(0).second, &v = slots[index].at(1).second;
    const auto gradient = gradients[index].to(weights.scalar_type()).contiguous();
    if (!config.adamw_scale_by_parameter || !parameters[index].is_expert) {
      update_(config, weights, m, v, gradient, numbers);
      continue;
    }
    for (int64_t expert = 0; expert < weights.size(0); ++expert)
      update_(config, weights[expert], m[expert], v[expert], gradient[expert], numbers);
  }
}

}  // namespace switchyard
