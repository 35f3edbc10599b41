#include "train/model_teacher.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/softmax.h>

#include "ops/cross_entropy.h"

namespace switchyard {

ModelTeacher::ModelTeacher(InferenceModel model, double weight, double temperature)
    : model_(std::move(model)), weight_(weight), temperature_(temperature) {
  // Losses of the teacher's router are not made: only its groups say where a batch may be cut.
  auto& routing = model_.config.routing;
  routing.load_balance_loss_coef = routing.importance_loss_coef = routing.load_loss_coef = 0.0;
}

SoftTargets ModelTeacher::soft_targets(const LossInput& input, int64_t step, int64_t first_example,
                                       const StepTotals& totals) const {
  const at::NoGradGuard no_grad;
  const ForwardOptions forward{.step = step, .first_example = first_example, .step_totals = totals};
  const auto encoder = encode(model_.config, model_.weights, input.encoder, forward);
  const auto decoder = decode(model_.config, model_.weights, input.decoder, encoder.hidden, input.encoder, forward);
  return {
      .weight = weight_,
      .temperature = temperature_,
      .probabilities = [this, hidden = decoder.hidden.reshape({-1, model_.config.d_model})](const at::Tensor& tokens) {
        const at::NoGradGuard without;
        const auto rows = hidden.index_select(0, tokens.to(hidden.device()));
        const double scale = model_.weights.output_scale / temperature_;
        return at::softmax(ops::vocabulary_logits(rows, model_.weights.output, scale), 1);
      }};
}

int64_t ModelTeacher::sequences_per_cut(const BatchShape& shape) const {
  return switchyard::sequences_per_cut(model_.config, shape);
}

}  // namespace switchyard
