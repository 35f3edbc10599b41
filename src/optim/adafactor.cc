#include "optim/adafactor.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace switchyard {
namespace {

int64_t num_matrices(const OptimizedParameter& parameter) { return parameter.is_expert ? parameter.tensor.size(0) : 1; }

// Sides of one expert's or the whole parameter's matrix; {1, numel} if it is none.
std::pair<int64_t, int64_t> matrix_sides(const OptimizedParameter& parameter) {
  const auto& tensor = parameter.tensor;
  if (tensor.dim() == (parameter.is_expert ? 3 : 2)) return {tensor.size(-2), tensor.size(-1)};
  return {1, tensor.numel() / std::max<int64_t>(1, num_matrices(parameter))};
}

bool is_factored(const OptimizerConfig& config, const OptimizedParameter& parameter) {
  if (parameter.tensor.dim() != (parameter.is_expert ? 3 : 2)) return false;
  const auto [rows, columns] = matrix_sides(parameter);
  return std::min(rows, columns) >= std::max<int64_t>(1, config.min_dim_size_to_factor);
}

double decay_at(const OptimizerConfig& config, int64_t step) {
  return 1.0 - std::pow(static_cast<double>(step), -config.decay_rate);
}

// Muon takes hidden matrices itself.
bool is_left_to_others(const OptimizerConfig& config, const OptimizedParameter& parameter) {
  return config.name == "adamw" || (config.name == "muon" && parameter.is_hidden_matrix);
}

// The matrices of one parameter, pointing into its tensors.
void append_matrices(const OptimizerConfig& config, const OptimizedParameter& parameter, const SlotTensors& slots,
                     const at::Tensor& gradient, double rate, std::vector<double>* squares,
                     std::vector<kernels::AdafactorMatrix>& matrices) {
  const auto [rows, columns] = matrix_sides(parameter);
  const bool has_copy = writes_adafactor_copy(config, parameter, gradient);
  for (int64_t index = 0; index < num_matrices(parameter); ++index) {
    const int64_t offset = index * rows * columns;
    kernels::AdafactorMatrix matrix{.parameter = parameter.tensor.mutable_data_ptr<float>() + offset,
                                    .rows = rows,
                                    .columns = columns,
                                    .rate = rate,
                                    .shrink = parameter.decays ? 1.0 - rate * config.weight_decay : 1.0};
    if (has_copy) matrix.copy = static_cast<kernels::BFloat16*>(parameter.copy.mutable_data_ptr()) + offset;
    if (gradient.scalar_type() == at::kBFloat16)
      matrix.bfloat16_gradient = static_cast<const kernels::BFloat16*>(gradient.const_data_ptr()) + offset;
    else
      matrix.gradient = gradient.const_data_ptr<float>() + offset;
    if (is_factored(config, parameter)) {
      float* smaller = slots.at(0).second.mutable_data_ptr<float>() + index * std::min(rows, columns);
      float* larger = slots.at(1).second.mutable_data_ptr<float>() + index * std::max(rows, columns);
      matrix.row_moment = rows <= columns ? smaller : larger;
      matrix.column_moment = rows <= columns ? larger : smaller;
    } else {
      matrix.v = slots.at(0).second.mutable_data_ptr<float>() + offset;
    }
    if (squares != nullptr) {
      squares->resize(static_cast<size_t>(num_matrices(parameter)), -1.0);
      matrix.parameter_squares = &squares->at(static_cast<size_t>(index));
    }
    if (rows * columns > 0) matrices.push_back(matrix);
  }
}

// sqrt(mean of squares) over each expert or over all, kept broadcastable.
at::Tensor root_mean_square(const at::Tensor& tensor, bool is_expert) {
  if (!is_expert) return tensor.square().mean().sqrt();
  std::vector<int64_t> dims;
  for (int64_t dim = 1; dim < tensor.dim(); ++dim) dims.push_back(dim);
  return dims.empty() ? tensor.abs() : tensor.square().mean(dims, /*keepdim=*/true).sqrt();
}

}  // namespace

SlotTensors adafactor_slots(const OptimizerConfig& config, const OptimizedParameter& parameter) {
  const auto& tensor = parameter.tensor;
  if (!is_factored(config, parameter)) return {{"v", at::zeros(tensor.sizes(), tensor.options())}};
  const auto [rows, columns] = matrix_sides(parameter);
  std::vector<int64_t> row_shape = {std::min(rows, columns)}, column_shape = {std::max(rows, columns)};
  if (parameter.is_expert) {
    row_shape.insert(row_shape.begin(), tensor.size(0));
    column_shape.insert(column_shape.begin(), tensor.size(0));
  }
  return {{"v_row", at::zeros(row_shape, tensor.options())}, {"v_col", at::zeros(column_shape, tensor.options())}};
}

bool has_adafactor_kernel(const OptimizerConfig& config, const OptimizedParameter& parameter,
                          const at::Tensor& gradient) {
  const auto& tensor = parameter.tensor;
  return !is_left_to_others(config, parameter) && tensor.is_cpu() && tensor.scalar_type() == at::kFloat &&
         tensor.is_contiguous() && gradient.is_cpu() &&
         (gradient.scalar_type() == at::kFloat || gradient.scalar_type() == at::kBFloat16);
}

bool writes_adafactor_copy(const OptimizerConfig& config, const OptimizedParameter& parameter,
                           const at::Tensor& gradient) {
  const auto& copy = parameter.copy;
  return copy.defined() && copy.scalar_type() == at::kBFloat16 && copy.is_contiguous() &&
         has_adafactor_kernel(config, parameter, gradient);
}

std::vector<kernels::GradientSums> adafactor_read(const OptimizerConfig& config,
                                                  const std::vector<OptimizedParameter>& parameters,
                                                  const std::vector<SlotTensors>& slots,
                                                  std::vector<at::Tensor>& gradients) {
  std::vector<kernels::AdafactorMatrix> matrices;
  for (size_t index = 0; index < parameters.size(); ++index) {
    if (!has_adafactor_kernel(config, parameters[index], gradients[index])) continue;
    gradients[index] = gradients[index].contiguous();
    append_matrices(config, parameters[index], slots[index], gradients[index], /*rate=*/0.0, nullptr, matrices);
  }
  return kernels::adafactor_read(matrices);
}

void adafactor_step_(const OptimizerConfig& config, const std::vector<OptimizedParameter>& parameters,
                     const std::vector<SlotTensors>& slots, const GradientReading& reading, ParameterSquares& squares,
                     int64_t step, double gradient_scale) {
  std::vector<kernels::AdafactorMatrix> matrices;
  for (size_t index = 0; index < parameters.size(); ++index) {
    const auto& parameter = parameters[index];
    const auto& gradient = reading.gradients[index];
    if (is_left_to_others(config, parameter)) continue;
    if (has_adafactor_kernel(config, parameter, gradient))
      append_matrices(config, parameter, slots[index], gradient, learning_rate(config, step) * parameter.rate_scale,
                      &squares[index], matrices);
    else
      adafactor_reference_step_(config, parameter, slots[index], gradient, step, gradient_scale);
  }
  kernels::adafactor_update(matrices, reading.matrices,
                            {.decay = decay_at(config, step),
                             .gradient_scale = gradient_scale,
                             .clipping_threshold = config.clipping_threshold,
                             .epsilon1 = config.epsilon1,
                             .epsilon2 = config.epsilon2,
                             .scale_by_parameter = config.scale_by_parameter});
}

void adafactor_reference_step_(const OptimizerConfig& config, const OptimizedParameter& parameter,
                               const SlotTensors& slots, const at::Tensor& gradient, int64_t step,
                               double gradient_scale) {
  const auto& weights = parameter.tensor;
  const double decay = decay_at(config, step);
  const auto g = gradient.to(weights.scalar_type()) * gradient_scale;
  const auto g_squared = g.square() + config.epsilon1;
  at::Tensor update;
  if (is_factored(config, parameter)) {
    auto v_row = slots.at(0).second, v_col = slots.at(1).second;
    const bool rows_are_fewer = weights.size(-2) <= weights.size(-1);
    const int64_t larger = rows_are_fewer ? -1 : -2, smaller = rows_are_fewer ? -2 : -1;
    v_row.mul_(decay).add_(g_squared.mean(larger), 1.0 - decay);
    v_col.mul_(decay).add_(g_squared.mean(smaller), 1.0 - decay);
    const auto row_factor = (v_row / v_row.mean(-1, /*keepdim=*/true)).rsqrt();
    update = g * row_factor.unsqueeze(larger) * v_col.rsqrt().unsqueeze(smaller);
  } else {
    auto v = slots.at(0).second;
    v.mul_(decay).add_(g_squared, 1.0 - decay);
    update = g * v.rsqrt();
  }
  const double rate = learning_rate(config, step) * parameter.rate_scale;
  if (config.clipping_threshold > 0)
    update = update / (root_mean_square(update, parameter.is_expert) / config.clipping_threshold).clamp_min(1.0);
  if (config.scale_by_parameter)
    update = update * root_mean_square(weights, parameter.is_expert).clamp_min(config.epsilon2);
  at::Tensor(weights).mul_(parameter.decays ? 1.0 - rate * config.weight_decay : 1.0).sub_(update, rate);
}

}  // namespace switchyard
