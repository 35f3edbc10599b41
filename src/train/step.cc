#include "train/step.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "eval/text_loss.h"
#include "model/loss.h"
#include "model/routing_groups.h"
#include "optim/gradients.h"

namespace switchyard {
namespace {

int64_t count_real(const std::vector<int32_t>& ids) {
  return static_cast<int64_t>(std::count_if(ids.begin(), ids.end(), [](int32_t id) { return id != 0; }));
}

// Rows first, first + 1, ... of the batch, whose losses are token_losses [rows * decoder_length].
void add_parts(const Batch& batch, int64_t first, const at::Tensor& token_losses, std::vector<PartResult>& parts) {
  if (batch.part.empty()) return;
  const auto losses = token_losses.to(at::kCPU, at::kDouble).view({-1, batch.decoder_length}).sum(1);
  for (int64_t n = 0; n < losses.size(0); ++n) {
    const int64_t row = first + n;
    const auto part = static_cast<size_t>(batch.part[static_cast<size_t>(row)]);
    if (parts.size() <= part) parts.resize(part + 1);
    const auto real = [&](const std::vector<int32_t>& ids, int64_t length) {
      const auto begin = ids.begin() + row * length;
      return static_cast<int64_t>(length - std::count(begin, begin + length, 0));
    };
    const int64_t labels = real(batch.decoder_target_tokens, batch.decoder_length);
    ++parts[part].examples;
    parts[part].tokens += labels + real(batch.encoder_input_tokens, batch.encoder_length);
    parts[part].labels += labels;
    parts[part].loss += losses[n].item<double>();
  }
}

void check_teacher_cut(const Teacher& teacher, const BatchShape& shape, int64_t rows) {
  const int64_t unit = teacher.sequences_per_cut(shape);
  SY_CHECK(rows >= shape.sequences || rows % unit == 0, "train.micro_batch_size = ", rows,
           " would split a routing group of the teacher; expected 0 (the whole batch) or a multiple of ", unit);
}

}  // namespace

std::vector<OptimizedParameter> optimized_parameters(const std::vector<NamedParameter>& parameters,
                                                     const OptimizerConfig& config) {
  std::vector<OptimizedParameter> list;
  for (const auto& [spec, tensor] : parameters) {
    if (spec.is_buffer()) continue;
    const bool is_norm_or_bias =
        spec.role == Role::kNorm || spec.role == Role::kPositionBias || spec.role == Role::kRouterBias;
    list.push_back({.name = spec.name,
                    .tensor = tensor->detach(),
                    .is_expert = spec.is_expert(),
                    .rate_scale = spec.is_router() ? config.router_learning_rate_scale : 1.0,
                    .decays = !is_norm_or_bias});
  }
  return list;
}

double mean_dropped_fraction(const StepResult& result) {
  double sum = 0.0;
  for (const auto& layer : result.layers) sum += layer.statistics().dropped_fraction;
  return result.layers.empty() ? 0.0 : sum / static_cast<double>(result.layers.size());
}

Learner::Learner(const ModelConfig& model, ModelWeights weights, const OptimizerConfig& optimizer,
                 const StepOptions& options)
    : model_(model), weights_(std::move(weights)), optimizer_config_(optimizer), options_(options) {
  parameters_ = list_parameters(model_, weights_);
  std::erase_if(parameters_, [](const NamedParameter& parameter) { return parameter.spec.is_buffer(); });
  for (auto& parameter : parameters_) parameter.tensor->requires_grad_();
  optimizer_.emplace(optimizer_config_, optimized_parameters(parameters_, optimizer_config_));
}

int64_t Learner::num_parameters() const {
  int64_t count = 0;
  for (const auto& parameter : parameters_) count += parameter.spec.numel();
  return count;
}

StepResult Learner::forward_backward(const Batch& batch, int64_t step) {
  const BatchShape shape{batch.batch_size, batch.encoder_length, batch.decoder_length};
  check_micro_batch(model_, shape, options_.micro_batch_size);
  const int64_t rows = options_.micro_batch_size > 0 ? options_.micro_batch_size : batch.batch_size;
  if (options_.teacher != nullptr) check_teacher_cut(*options_.teacher, shape, rows);
  const int64_t labels = count_real(batch.decoder_target_tokens);
  const StepTotals totals{.sequences = batch.batch_size,
                          .encoder_tokens = count_real(batch.encoder_input_tokens),
                          .decoder_tokens = labels};
  const auto weights = cast_weights(model_, weights_, options_.dtype);  // once a step: micro-batches share the copies
  double importance = 0.0, load = 0.0;
  StepResult result;
  result.step = step;
  result.tokens = batch.batch_size * (batch.encoder_length + batch.decoder_length);
  for (int64_t first = 0; first < batch.batch_size; first += rows) {
    const auto input = to_tensors(batch, first, std::min(rows, batch.batch_size - first), weights_.shared.device());
    std::optional<SoftTargets> soft_targets;
    if (options_.teacher != nullptr)
      soft_targets = options_.teacher->soft_targets(input, step, batch.first_example + first, totals);
    const auto loss = compute_loss(
        model_, weights, input,
        {.training = true,
         .seed = options_.seed,
         .step = step,
         .first_example = batch.first_example + first,
         .step_totals = totals},
        {.z_loss = options_.z_loss, .step_labels = labels, .soft_targets = soft_targets ? &*soft_targets : nullptr});
    loss.total.backward();
    result.loss += loss.total.item<double>();
    result.cross_entropy += loss.cross_entropy.item<double>();
    if (soft_targets)
      result.soft_cross_entropy = result.soft_cross_entropy.value_or(0.0) + loss.soft_cross_entropy.item<double>();
    result.load_balance_loss += loss.load_balance_loss;
    result.router_z_loss += loss.router_z_loss;
    importance += loss.importance_loss;
    load += loss.load_loss;
    add_parts(batch, first, loss.token_losses, result.parts);
    add_layers(loss.encoder, result.layers);
    add_layers(loss.decoder, result.layers);
  }
  if (model_.routing.importance_loss_coef > 0) result.importance_loss = importance;
  if (model_.routing.load_loss_coef > 0) result.load_loss = load;
  return result;
}

std::vector<at::Tensor> Learner::take_gradients() {
  std::vector<at::Tensor> gradients;
  for (auto& parameter : parameters_) {
    gradients.push_back(parameter.tensor->grad());
    parameter.tensor->mutable_grad() = at::Tensor();
  }
  return gradients;
}

StepResult Learner::update(const Batch& batch, int64_t step) {
  auto result = forward_backward(batch, step);
  const auto gradients = take_gradients();
  result.gradient_norm = gradient_norm(gradients);
  if (!std::isfinite(result.loss) || !std::isfinite(result.gradient_norm)) {
    const auto where = first_non_finite(gradients);
    throw NotFinite(join("step ", step, ": ", std::isfinite(result.loss) ? "a gradient" : "the loss", " is not finite",
                         where ? "; first in the gradient of " + parameters_[*where].spec.name : ""));
  }
  const at::NoGradGuard no_grad;
  optimizer_->step_(gradients, step, clip_scale(result.gradient_norm, optimizer_config_.gradient_clip_norm));
  update_selection_biases(model_, weights_, result.layers);
  result.learning_rate = learning_rate(optimizer_config_, step);
  return result;
}

}  // namespace switchyard
