#include "train/step.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "base/config.h"
#include "model/loss.h"
#include "model/routing_groups.h"
#include "optim/gradients.h"
#include "train/rank_sums.h"

namespace switchyard {
namespace {

int64_t count_real(const std::vector<int32_t>& ids) {
  return static_cast<int64_t>(std::count_if(ids.begin(), ids.end(), [](int32_t id) { return id != 0; }));
}

void check_teacher_cut(const Teacher& teacher, const BatchShape& shape, int64_t rows) {
  const int64_t unit = teacher.sequences_per_cut(shape);
  SY_CHECK(rows >= shape.sequences || rows % unit == 0, "train.micro_batch_size = ", rows,
           " would split a routing group of the teacher; expected 0 (the whole batch) or a multiple of ", unit);
}

// A unit that this rank updates, as the optimiser takes it; routers have a scale of the rate of their own.
OptimizedParameter optimized(const ParameterSpec& spec, const UpdateUnit& unit, const at::Tensor& values,
                             const OptimizerConfig& config) {
  const bool is_norm_or_bias =
      spec.role == Role::kNorm || spec.role == Role::kPositionBias || spec.role == Role::kRouterBias;
  const bool is_layer_matrix = spec.role == Role::kAttention || spec.role == Role::kFeedForward;
  const bool is_whole = !spec.is_expert() || unit.experts.size() == spec.shape[0];
  return {.name = is_whole ? spec.name : join(spec.name, "[", unit.experts.begin, ":", unit.experts.end, "]"),
          .tensor = values.detach(),
          .is_expert = spec.is_expert(),
          .rate_scale = spec.is_router()   ? config.router_learning_rate_scale
                        : spec.is_expert() ? config.expert_learning_rate_scale
                                           : 1.0,
          .decays = !is_norm_or_bias,
          .is_hidden_matrix = is_layer_matrix && (config.muon_experts || !spec.is_expert())};
}

ParameterValues values_of(const ModelConfig& model, const ModelWeights& weights) {
  std::vector<at::Tensor> tensors;
  ModelWeights handles = weights;
  for (const auto& parameter : list_parameters(model, handles)) tensors.push_back(*parameter.tensor);
  return [tensors](size_t parameter, Slice) { return tensors[parameter]; };
}

// The dtype in which new values travel to other ranks: that in which their forward passes read them, as they would be
// rounded there anyway. Embeddings are looked up in f32.
std::vector<at::ScalarType> value_dtypes(const std::vector<NamedParameter>& parameters, at::ScalarType dtype) {
  std::vector<at::ScalarType> dtypes;
  for (const auto& parameter : parameters)
    dtypes.push_back(parameter.spec.role == Role::kEmbedding ? at::kFloat : dtype_in_pass(parameter.spec, dtype));
  return dtypes;
}

// Which parameters get gradients.
std::vector<bool> trained_parameters(const ModelConfig& model, const StepOptions& options) {
  std::vector<bool> trained;
  for (const auto& spec : parameter_specs(model))
    trained.push_back(!spec.is_buffer() && !is_frozen(spec, options.frozen) &&
                      (options.low_rank.rank == 0 || takes_low_rank(spec)));
  SY_CHECK(std::find(trained.begin(), trained.end(), true) != trained.end(),
           "nothing is left to train: train.frozen holds every weight");
  return trained;
}

const Mesh& one_rank() {
  static const Mesh mesh;
  return mesh;
}

}  // namespace

bool is_frozen(const ParameterSpec& spec, const std::vector<std::string>& groups) {
  static const std::vector<std::string> kGroups = {"experts",      "routers",    "non_experts", "attention",
                                                   "feed_forward", "embeddings", "norms"};
  const auto holds = [&](const std::string& group) {
    if (group == "experts") return spec.is_expert();
    if (group == "routers") return spec.is_router();
    if (group == "non_experts") return !spec.is_expert() && !spec.is_router();
    if (group == "attention") return spec.role == Role::kAttention && !spec.is_expert();
    if (group == "feed_forward") return spec.role == Role::kFeedForward && !spec.is_expert();
    if (group == "norms") return spec.role == Role::kNorm;
    return spec.role == Role::kEmbedding || spec.role == Role::kOutput || spec.role == Role::kPositionBias;
  };
  for (const auto& group : groups)
    SY_CHECK(std::find(kGroups.begin(), kGroups.end(), group) != kGroups.end(), "train.frozen: no group \"", group,
             "\"", nearest_hint(group, kGroups), "; groups: experts, routers, non_experts, attention, feed_forward, ",
             "embeddings, norms");
  return std::any_of(groups.begin(), groups.end(), holds);
}

double mean_dropped_fraction(const StepResult& result) {
  double sum = 0.0;
  for (const auto& layer : result.layers) sum += layer.statistics().dropped_fraction;
  return result.layers.empty() ? 0.0 : sum / static_cast<double>(result.layers.size());
}

int64_t rows_of_pass(const ModelConfig& model, const BatchShape& step, int64_t num_parts, int64_t micro_batch_size) {
  if (num_parts == 1) {
    check_micro_batch(model, step, micro_batch_size);
    return micro_batch_size > 0 ? micro_batch_size : step.sequences;
  }
  const int64_t rows = step.sequences / num_parts, cut = sequences_per_cut(model, step);
  SY_CHECK(rows % cut == 0, "[parallel] data x expert = ", num_parts, " leaves ", rows, " of a step's ", step.sequences,
           " sequences to each rank, which splits routing groups of ", cut,
           " sequences; expected data x expert to divide ", step.sequences / cut, ", or a smaller routing.group_size");
  if (micro_batch_size == 0 || micro_batch_size >= rows) return rows;
  check_micro_batch(model, step, micro_batch_size);
  return micro_batch_size;
}

Learner::Learner(const ModelConfig& model, const ParameterValues& values, const OptimizerConfig& optimizer,
                 const StepOptions& options, const Mesh& mesh, at::Device device)
    : model_(model),
      mesh_(mesh),
      exchange_(parameter_specs(model), mesh, trained_parameters(model, options)),
      optimizer_config_(optimizer),
      options_(options) {
  SY_CHECK(options_.teacher == nullptr || mesh_.tensor() == nullptr,
           "a teacher's probabilities are of the whole vocabulary, which tensor = ", mesh_.layout().tensor,
           " cuts; distil with [parallel] tensor = 1");
  auto cut = cut_weights(model_, exchange_, mesh_, values, device);
  weights_ = std::move(cut.weights);
  own_ = std::move(cut.own);
  parameters_ = list_parameters(model_, weights_);
  pass_.emplace(model_, weights_, options_.dtype, exchange_.is_trained());
  if (mesh_.world() != nullptr)
    pass_->sum_in_f32([this](size_t parameter) {
      if (is_last_pass_) exchange_.ready(parameter, pass_->gradient(parameter));
    });
  std::vector<OptimizedParameter> list;
  for (size_t unit = 0; unit < own_.size(); ++unit) {
    if (!exchange_.is_trained(own_units()[unit].parameter)) continue;
    optimized_units_.push_back(unit);
    const size_t parameter = own_units()[unit].parameter;
    list.push_back(optimized(parameters_[parameter].spec, own_units()[unit], own_[unit], optimizer_config_));
    if (mesh_.world() == nullptr) list.back().copy = pass_->copy(parameter);
  }
  if (options_.low_rank.rank > 0) list = open_low_rank();
  optimizer_.emplace(optimizer_config_, std::move(list), options_.dtype);
  if (mesh_.experts() != nullptr) {
    to_experts_.emplace(*mesh_.experts(), /*carries_numbers=*/model_.expert_dropout_rate > 0.0);
    shared_tokens_.emplace(*mesh_.experts());
  }
  if (mesh_.tensor() != nullptr) split_.emplace(*mesh_.tensor());
}

std::vector<OptimizedParameter> Learner::open_low_rank() {
  SY_CHECK(mesh_.world() == nullptr, "low-rank updates are trained by one process, not by ",
           mesh_.layout().num_ranks());
  std::vector<ParameterSpec> specs;
  std::vector<at::Tensor> matrices;
  for (const size_t unit : optimized_units_) {
    specs.push_back(parameters_[own_units()[unit].parameter].spec);
    matrices.push_back(own_[unit]);
  }
  low_rank_.emplace(options_.low_rank, specs, std::move(matrices), options_.seed);
  return low_rank_->parameters();
}

Learner::Learner(const ModelConfig& model, const ModelWeights& weights, const OptimizerConfig& optimizer,
                 const StepOptions& options)
    : Learner(model, values_of(model, weights), optimizer, options, one_rank(), weights.shared.device()) {}

int64_t Learner::num_parameters() const {
  int64_t count = 0;
  for (const auto& spec : parameter_specs(model_)) count += spec.is_buffer() ? 0 : spec.numel();
  return count;
}

void Learner::load_low_rank(const Adapters& adapters) {
  low_rank_->load(adapters);
  pass_->refresh();
}

ComputeWeights Learner::shared_weights() const {
  auto weights = pass_->compute();
  if (shared_tokens_) weights.exchange = &*shared_tokens_;
  if (split_) weights.split = &*split_;
  return weights;
}

StepTotals Learner::totals_of(const Batch& batch) const {
  return sum_totals({.sequences = batch.batch_size,
                     .encoder_tokens = count_real(batch.encoder_input_tokens),
                     .decoder_tokens = count_real(batch.decoder_target_tokens),
                     .examples = batch.num_examples()},
                    mesh_);
}

StepResult Learner::forward_backward(const Batch& batch, int64_t step) {
  const BatchShape shape{batch.batch_size * mesh_.num_batch_parts(), batch.encoder_length, batch.decoder_length};
  const int64_t rows = rows_of_pass(model_, shape, mesh_.num_batch_parts(), options_.micro_batch_size);
  if (options_.teacher != nullptr) check_teacher_cut(*options_.teacher, shape, rows);
  const auto totals = totals_of(batch);
  const int64_t labels = totals.decoder_tokens;
  auto weights = pass_->compute();
  if (to_experts_) weights.exchange = &*to_experts_;
  if (split_) weights.split = &*split_;
  double importance = 0.0, load = 0.0;
  StepResult result;
  result.step = step;
  result.tokens = totals.sequences * (batch.encoder_length + batch.decoder_length);
  result.real_tokens = totals.encoder_tokens + totals.decoder_tokens;
  result.examples = totals.examples;
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
         .step_totals = totals,
         .recompute_blocks = options_.recompute_blocks},
        {.z_loss = options_.z_loss, .step_labels = labels, .soft_targets = soft_targets ? &*soft_targets : nullptr});
    is_last_pass_ = first + rows >= batch.batch_size;
    loss.total.backward();
    if (!is_last_pass_ || low_rank_) pass_->keep_sums();
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

StepResult Learner::update(const Batch& batch, int64_t step) {
  const auto before = mesh_.world() != nullptr ? mesh_.world()->wire_bytes() : WireBytes{};
  auto result = forward_backward(batch, step);
  const auto gradients = exchange_.sum_gradients(pass_->take_gradients());
  std::vector<at::Tensor> trained;
  for (const size_t unit : optimized_units_) trained.push_back(gradients[unit]);
  if (low_rank_) trained = low_rank_->gradients(trained);
  const double start = steady_seconds();
  const auto reading = optimizer_->read(trained);
  result.optimizer_seconds = steady_seconds() - start;
  double squares = 0.0;
  for (const double sum : reading.square_sums) squares += sum;
  sum_results(result, squares, mesh_);
  result.gradient_norm = std::sqrt(squares);
  if (!std::isfinite(result.loss) || !std::isfinite(result.gradient_norm)) {
    const auto where = first_non_finite(gradients);
    const size_t none = parameters_.size();
    const size_t first = smallest_over_ranks(where ? own_units()[*where].parameter : none, none, mesh_);
    throw NotFinite(join("step ", step, ": ", std::isfinite(result.loss) ? "a gradient" : "the loss", " is not finite",
                         first < none ? "; first in the gradient of " + parameters_[first].spec.name : ""));
  }
  const at::NoGradGuard no_grad;
  const double read_until = steady_seconds();
  optimizer_->step_(reading, step, clip_scale(result.gradient_norm, optimizer_config_.gradient_clip_norm));
  result.optimizer_seconds += steady_seconds() - read_until;
  if (low_rank_) low_rank_->apply();
  std::vector<at::Tensor> tensors;
  for (const auto& parameter : parameters_) tensors.push_back(*parameter.tensor);
  exchange_.share_values(own_, tensors, value_dtypes(parameters_, options_.dtype));
  if (low_rank_ || mesh_.world() != nullptr) pass_->refresh();  // else the optimiser wrote the copies
  update_selection_biases(model_, weights_, result.layers);
  result.learning_rate = learning_rate(optimizer_config_, step);
  if (mesh_.world() != nullptr) {
    const auto after = mesh_.world()->wire_bytes();
    result.wire_bytes = {.all_to_all = after.all_to_all - before.all_to_all,
                         .all_reduce = after.all_reduce - before.all_reduce,
                         .broadcast = after.broadcast - before.broadcast};
  }
  return result;
}

}  // namespace switchyard
