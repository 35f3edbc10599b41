#include "optim/optimizer.h"

#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <unordered_map>

#include "base/config.h"
#include "optim/adafactor.h"
#include "optim/adamw.h"
#include "optim/gradients.h"
#include "optim/muon.h"

namespace switchyard {
namespace {

void check_known(const std::string& key, const std::string& value, const std::vector<std::string>& known) {
  std::string list;
  for (const auto& name : known) list += (list.empty() ? "" : ", ") + name;
  SY_CHECK(std::find(known.begin(), known.end(), value) != known.end(), "optimizer.", key, " = \"", value,
           "\": expected one of ", list, nearest_hint(value, known));
}

void check_range(const std::string& key, double value, double lowest, double highest) {
  SY_CHECK(std::isfinite(value) && value >= lowest && value <= highest, "optimizer.", key, " = ", value,
           ": expected a number from ", lowest, " to ", highest);
}

// [num_experts, ...] gradients must match as well: an expert that saw no token has a gradient of zeros, not no
// gradient.
at::Tensor checked_gradient(const at::Tensor& gradient, const OptimizedParameter& parameter) {
  const auto& tensor = parameter.tensor;
  if (!gradient.defined()) return at::zeros(tensor.sizes(), tensor.options());
  SY_CHECK(gradient.sizes() == tensor.sizes(), "optimizer: the gradient of ", parameter.name, " has shape ",
           gradient.sizes(), ", the parameter ", tensor.sizes());
  SY_CHECK(gradient.device() == tensor.device(), "optimizer: the gradient of ", parameter.name, " is on ",
           gradient.device(), ", the parameter on ", tensor.device());
  return gradient;
}

}  // namespace

void validate(const OptimizerConfig& config) {
  constexpr double kLarge = 1e18;
  check_known("name", config.name, {"adafactor", "adamw", "muon"});
  check_known("schedule", config.schedule, {"inverse_sqrt", "constant", "linear", "cosine", "trapezoid"});
  check_range("learning_rate", config.learning_rate, 0.0, 1e6);
  check_range("warmup_steps", static_cast<double>(config.warmup_steps), 0.0, kLarge);
  check_range("linear_warmup_steps", static_cast<double>(config.linear_warmup_steps), 0.0, kLarge);
  check_range("decay_steps", static_cast<double>(config.decay_steps), 0.0, kLarge);
  check_range("final_fraction", config.final_fraction, 0.0, 1.0);
  check_range("cooldown_fraction", config.cooldown_fraction, 0.0, 1.0);
  check_range("gradient_clip_norm", config.gradient_clip_norm, 0.0, kLarge);
  check_range("weight_decay", config.weight_decay, 0.0, kLarge);
  check_range("router_learning_rate_scale", config.router_learning_rate_scale, 0.0, 1e6);
  check_range("expert_learning_rate_scale", config.expert_learning_rate_scale, 0.0, 1e6);
  check_range("decay_rate", config.decay_rate, 0.0, 10.0);
  check_range("clipping_threshold", config.clipping_threshold, 0.0, kLarge);
  check_range("min_dim_size_to_factor", static_cast<double>(config.min_dim_size_to_factor), 0.0, kLarge);
  check_range("epsilon1", config.epsilon1, 1e-37,
              1.0);  // a normal f32, so that a zero gradient divides 0 by more than 0
  check_range("epsilon2", config.epsilon2, 0.0, kLarge);
  check_range("beta1", config.beta1, 0.0, 1.0 - 1e-12);
  check_range("beta2", config.beta2, 0.0, 1.0 - 1e-12);
  check_range("epsilon", config.epsilon, 1e-37, 1.0);
  check_range("muon_learning_rate_scale", config.muon_learning_rate_scale, 0.0, 1e6);
  check_range("momentum", config.momentum, 0.0, 1.0 - 1e-12);
}

Optimizer::Optimizer(const OptimizerConfig& config, std::vector<OptimizedParameter> parameters,
                     at::ScalarType product_dtype)
    : config_(config), parameters_(std::move(parameters)), product_dtype_(product_dtype) {
  validate(config_);
  for (const auto& parameter : parameters_) {
    SY_CHECK(parameter.tensor.defined(), "optimizer: parameter ", parameter.name, " has no tensor");
    SY_CHECK(!parameter.is_expert || parameter.tensor.dim() > 0, "optimizer: expert parameter ", parameter.name,
             " has no axis");
    slots_.push_back(config_.name == "adamw"                                ? adamw_slots(parameter)
                     : config_.name == "muon" && parameter.is_hidden_matrix ? muon_slots(parameter)
                                                                            : adafactor_slots(config_, parameter));
    versions_.push_back(parameter.tensor._version());
  }
  parameter_squares_.resize(parameters_.size());
}

GradientReading Optimizer::read(const std::vector<at::Tensor>& gradients) const {
  SY_CHECK(gradients.size() == parameters_.size(), "optimizer: ", gradients.size(), " gradients for ",
           parameters_.size(), " parameters");
  const c10::NoGradGuard no_grad;
  GradientReading reading;
  for (size_t index = 0; index < gradients.size(); ++index)
    reading.gradients.push_back(checked_gradient(gradients[index], parameters_[index]));
  reading.matrices = adafactor_read(config_, parameters_, slots_, reading.gradients);
  auto matrix = reading.matrices.begin();
  for (size_t index = 0; index < gradients.size(); ++index) {
    const auto& [parameter, gradient] = std::tie(parameters_[index], reading.gradients[index]);
    if (gradient.numel() == 0 || !has_adafactor_kernel(config_, parameter, gradient)) {
      reading.square_sums.push_back(square_sum(gradient));
      continue;
    }
    double sum = 0.0;
    for (int64_t n = 0; n < (parameter.is_expert ? gradient.size(0) : 1); ++n) sum += (matrix++)->total;
    reading.square_sums.push_back(sum);
  }
  return reading;
}

void Optimizer::step_(const GradientReading& reading, int64_t step, double gradient_scale) {
  SY_CHECK(step >= 1, "optimizer: step ", step, "; steps count from 1");
  const c10::NoGradGuard no_grad;
  for (size_t index = 0; index < parameters_.size(); ++index)
    if (parameters_[index].tensor._version() != versions_[index]) parameter_squares_[index].clear();
  if (config_.name == "muon")
    muon_step_(config_, parameters_, slots_, reading.gradients, step, gradient_scale, product_dtype_);
  if (config_.name == "adamw")
    adamw_step_(config_, parameters_, slots_, reading.gradients, step, gradient_scale);
  else
    adafactor_step_(config_, parameters_, slots_, reading, parameter_squares_, step, gradient_scale);
  for (size_t index = 0; index < parameters_.size(); ++index) {
    const auto& [tensor, copy] = std::tie(parameters_[index].tensor, parameters_[index].copy);
    if (copy.defined() && !writes_adafactor_copy(config_, parameters_[index], reading.gradients[index]))
      copy.copy_(tensor);
    versions_[index] = tensor._version();
  }
}

SlotTensors Optimizer::state() const {
  SlotTensors state;
  for (size_t index = 0; index < parameters_.size(); ++index)
    for (const auto& [slot, tensor] : slots_[index]) state.emplace_back(parameters_[index].name + "." + slot, tensor);
  return state;
}

void Optimizer::load_state(const SlotTensors& tensors) {
  std::unordered_map<std::string, const at::Tensor*> by_name;
  for (const auto& [name, tensor] : tensors) by_name[name] = &tensor;
  const auto own = state();
  for (const auto& [name, slot] : own) {
    const auto found = by_name.find(name);
    SY_CHECK(found != by_name.end(), "optimizer state: ", name,
             " is missing; the checkpoint was written by another optimizer (this is ", config_.name,
             ") or for another model");
    SY_CHECK(found->second->sizes() == slot.sizes(), "optimizer state: ", name, " has shape ", found->second->sizes(),
             ", this run needs ", slot.sizes());
  }
  const c10::NoGradGuard no_grad;
  for (const auto& [name, slot] : own) at::Tensor(slot).copy_(*by_name.at(name));
}

}  // namespace switchyard
