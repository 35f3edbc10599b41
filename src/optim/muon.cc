#include "optim/muon.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

namespace switchyard {
namespace {

constexpr int kIterations = 5;
constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;  // of Jordan et al.: steepest at 0

}  // namespace

SlotTensors muon_slots(const OptimizedParameter& parameter) {
  return {{"momentum", at::zeros(parameter.tensor.sizes(), parameter.tensor.options())}};
}

at::Tensor orthogonalized(const at::Tensor& matrices) {
  const bool is_tall = matrices.size(-2) > matrices.size(-1);
  auto x = matrices.reshape({-1, matrices.size(-2), matrices.size(-1)});
  x = x / (x.square().sum({1, 2}, /*keepdim=*/true).sqrt() + 1e-30);
  if (is_tall) x = x.transpose(1, 2);
  if (x.scalar_type() == at::kFloat) x = x.to(at::kBFloat16);
  x = x.contiguous();
  for (int iteration = 0; iteration < kIterations; ++iteration) {
    const auto gram = at::bmm(x, x.transpose(1, 2));
    const auto polynomial = at::baddbmm(gram, gram, gram, kB, kC);
    x = at::baddbmm(x, polynomial, x, kA, 1.0);
  }
  if (is_tall) x = x.transpose(1, 2);
  return x.to(matrices.scalar_type()).reshape(matrices.sizes());
}

void muon_step_(const OptimizerConfig& config, const std::vector<OptimizedParameter>& parameters,
                const std::vector<SlotTensors>& slots, const std::vector<at::Tensor>& gradients, int64_t step,
                double gradient_scale) {
  for (size_t index = 0; index < parameters.size(); ++index) {
    const auto& parameter = parameters[index];
    if (!parameter.is_hidden_matrix) continue;
    const auto& weights = parameter.tensor;
    const auto& momentum = slots[index].at(0).second;
    const auto gradient = gradients[index].to(weights.scalar_type()) * gradient_scale;
    at::Tensor(momentum).mul_(config.momentum).add_(gradient);
    const double side = static_cast<double>(std::max(weights.size(-2), weights.size(-1)));
    const double rate = learning_rate(config, step) * parameter.rate_scale * config.muon_learning_rate_scale;
    auto update = orthogonalized(gradient + momentum * config.momentum) * (rate * std::sqrt(side));
    if (config.scale_by_parameter)
      update = update * weights.square().mean({-2, -1}, /*keepdim=*/true).sqrt().clamp_min(config.epsilon2);
    at::Tensor(weights).mul_(parameter.decays ? 1.0 - rate * config.weight_decay : 1.0).sub_(update);
  }
}

}  // namespace switchyard
