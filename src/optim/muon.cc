#include "optim/muon.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <map>

namespace switchyard {
namespace {

constexpr int kIterations = 5;
constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;  // of Jordan et al.: steepest at 0
constexpr int64_t kTogether = int64_t{1} << 22;           // values that are orthogonalised in one call

bool is_tall(const at::Tensor& matrices) { return matrices.size(-2) > matrices.size(-1); }

// [matrices, smaller side, larger side]
at::Tensor as_stack(const at::Tensor& tensor) {
  const auto stack = tensor.reshape({-1, tensor.size(-2), tensor.size(-1)});
  return is_tall(tensor) ? stack.transpose(1, 2) : stack;
}

// Of a stack whose rows are no more than its columns.
at::Tensor orthogonal_rows(at::Tensor x, at::ScalarType product_dtype) {
  const auto dtype = x.scalar_type();
  x = x / (x.square().sum({1, 2}, /*keepdim=*/true).sqrt() + 1e-30);
  if (dtype == at::kFloat) x = x.to(product_dtype);
  x = x.contiguous();
  for (int iteration = 0; iteration < kIterations; ++iteration) {
    const auto gram = at::bmm(x, x.transpose(1, 2));
    x = at::baddbmm(x, at::baddbmm(gram, gram, gram, kB, kC), x, kA, 1.0);
  }
  return x.to(dtype);
}

// What the step of one matrix is made of: the gradient's momentum, looking one step ahead (Nesterov).
at::Tensor remember_(const at::Tensor& momentum, const at::Tensor& gradient, double decay, double gradient_scale) {
  momentum.mul_(decay).add_(gradient, gradient_scale);
  return (momentum * decay).add_(gradient, gradient_scale);
}

void apply_(const OptimizerConfig& config, const OptimizedParameter& parameter, const at::Tensor& direction,
            int64_t step) {
  const auto& weights = parameter.tensor;
  const double rate = learning_rate(config, step) * parameter.rate_scale * config.muon_learning_rate_scale;
  // Orthonormal rows have a root mean square of one over the root of the larger side.
  const double unit = std::sqrt(static_cast<double>(std::max(weights.size(-2), weights.size(-1))));
  if (const double shrink = 1.0 - rate * config.weight_decay; parameter.decays && shrink != 1.0) weights.mul_(shrink);
  if (!config.scale_by_parameter) {
    weights.sub_(direction, rate * unit);
    return;
  }
  const auto size = weights.square().mean({-2, -1}, /*keepdim=*/true).sqrt().clamp_min(config.epsilon2);
  weights.addcmul_(direction, size, -rate * unit);
}

}  // namespace

SlotTensors muon_slots(const OptimizedParameter& parameter) {
  return {{"momentum", at::zeros(parameter.tensor.sizes(), parameter.tensor.options())}};
}

at::Tensor orthogonalized(const at::Tensor& matrices, at::ScalarType product_dtype) {
  const auto rows = orthogonal_rows(as_stack(matrices), product_dtype);
  return (is_tall(matrices) ? rows.transpose(1, 2) : rows).reshape(matrices.sizes());
}

void muon_step_(const OptimizerConfig& config, const std::vector<OptimizedParameter>& parameters,
                const std::vector<SlotTensors>& slots, const std::vector<at::Tensor>& gradients, int64_t step,
                double gradient_scale, at::ScalarType product_dtype) {
  // Matrices of one shape go through the products together, as far as they fit a cache: small ones are quick then.
  std::map<std::pair<int64_t, int64_t>, std::vector<size_t>> by_shape;
  for (size_t index = 0; index < parameters.size(); ++index) {
    if (!parameters[index].is_hidden_matrix) continue;
    const auto& tensor = parameters[index].tensor;
    by_shape[std::minmax({tensor.size(-2), tensor.size(-1)})].push_back(index);
  }
  for (const auto& [sides, indices] : by_shape) {
    for (size_t begin = 0, end = 0; begin < indices.size(); begin = end) {
      std::vector<at::Tensor> stacks;
      for (int64_t values = 0; end < indices.size() && (end == begin || values < kTogether); ++end) {
        const size_t index = indices[end];
        values += parameters[index].tensor.numel();
        stacks.push_back(as_stack(remember_(slots[index].at(0).second, gradients[index].to(parameters[index].tensor),
                                            config.momentum, gradient_scale)));
      }
      const auto directions = orthogonal_rows(stacks.size() == 1 ? stacks.front() : at::cat(stacks), product_dtype);
      int64_t first = 0;
      for (size_t n = begin; n < end; ++n) {
        const auto& parameter = parameters[indices[n]];
        const auto rows = directions.narrow(0, first, stacks[n - begin].size(0));
        first += rows.size(0);
        apply_(config, parameter,
               (is_tall(parameter.tensor) ? rows.transpose(1, 2) : rows).reshape(parameter.tensor.sizes()), step);
      }
    }
  }
}

}  // namespace switchyard
