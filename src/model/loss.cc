#include "model/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/one_hot.h>
#include <ATen/ops/softmax.h>

#include "base/error.h"
#include "ops/cross_entropy.h"

namespace switchyard {
namespace {

// HF's form: a stack's sparse layers as one, their logits joined along each sequence. N^2 mean over (sequence, expert)
// of f P, f from the argmax of the logits; padding counts. This stack's part of the mean over the step's sequences.
at::Tensor pooled_balance_loss(const StackOutput& stack, int64_t step_sequences) {
  std::vector<at::Tensor> logits;
  const int64_t batch = stack.hidden.size(0);
  for (const auto& layer : stack.sparse_layers)
    logits.push_back(layer.router_logits.view({batch, -1, layer.router_logits.size(1)}));
  const auto all = at::cat(logits, 1);
  const int64_t num_experts = all.size(2);
  const auto f = at::one_hot(at::argmax(all, 2), num_experts).to(all.scalar_type()).mean(1);
  const auto p = at::softmax(all, 2).mean(1);
  return (f * p).sum() * (static_cast<double>(num_experts) / static_cast<double>(step_sequences));
}

// The z-loss of the same form: the mean over layers.
at::Tensor mean_z_loss(const StackOutput& stack) {
  at::Tensor sum;
  for (const auto& layer : stack.sparse_layers)
    sum = sum.defined() ? sum + layer.routing.router_z_loss : layer.routing.router_z_loss;
  return sum * (1.0 / static_cast<double>(stack.sparse_layers.size()));
}

void add_scaled(at::Tensor& sum, const at::Tensor& term, double scale) {
  if (!term.defined()) return;
  sum = sum.defined() ? sum + term * scale : term * scale;
}

void add_stack(const RoutingConfig& routing, const StackOutput& stack, int64_t step_sequences, double scale,
               RouterLosses& losses) {
  if (stack.sparse_layers.empty()) return;
  const bool pooled = routing.load_balance_layers == LoadBalanceLayers::kPooled;
  if (pooled) {
    add_scaled(losses.load_balance, pooled_balance_loss(stack, step_sequences), scale);
    add_scaled(losses.router_z, mean_z_loss(stack), scale);
  }
  for (const auto& layer : stack.sparse_layers) {
    if (!pooled) {
      add_scaled(losses.load_balance, layer.routing.load_balance_loss, scale);
      add_scaled(losses.router_z, layer.routing.router_z_loss, scale);
    }
    add_scaled(losses.importance, layer.routing.importance_loss, scale);
    add_scaled(losses.load, layer.load_loss, scale);
  }
}

// Reports one term and adds it, weighted, to the total.
void add_term(const at::Tensor& term, double coefficient, bool in_total, double& reported, Loss& loss) {
  if (!term.defined()) return;
  reported = term.item<double>();
  if (in_total && coefficient != 0.0) loss.total = loss.total + term * coefficient;
}

}  // namespace

RouterLosses router_losses(const RoutingConfig& routing, const StackOutput& encoder, const StackOutput& decoder,
                           int64_t step_sequences) {
  RouterLosses losses;
  const auto layers = static_cast<double>(encoder.sparse_layers.size() + decoder.sparse_layers.size());
  const double scale = routing.load_balance_layers == LoadBalanceLayers::kMean ? 1.0 / std::max(1.0, layers) : 1.0;
  add_stack(routing, encoder, step_sequences, scale, losses);
  add_stack(routing, decoder, step_sequences, scale, losses);
  return losses;
}

Loss compute_loss(const ModelConfig& config, const ComputeWeights& weights, const LossInput& input,
                  const ForwardOptions& forward, const LossOptions& options) {
  Loss loss;
  loss.encoder = encode(config, weights, input.encoder, forward);
  loss.decoder = decode(config, weights, input.decoder, loss.encoder.hidden, input.encoder, forward);
  const auto hidden = loss.decoder.hidden.reshape({-1, config.d_model});
  const auto kept = input.labels.reshape({-1});
  const auto entropy =
      ops::linear_cross_entropy(hidden, weights.output, kept, weights.output_scale, weights.vocabulary());
  loss.num_labels = entropy.num_labels;
  loss.num_correct = entropy.num_correct;
  loss.token_losses = entropy.token_losses;
  const auto labels =
      static_cast<double>(std::max<int64_t>(1, options.step_labels > 0 ? options.step_labels : entropy.num_labels));
  loss.cross_entropy = entropy.sum * (1.0 / labels);
  loss.total = loss.cross_entropy;
  if (const auto* soft = options.soft_targets) {
    SY_CHECK(weights.vocabulary().split == nullptr,
             "soft targets are of the whole vocabulary, of which only a part is here");
    loss.soft_cross_entropy = ops::soft_cross_entropy(hidden, weights.output, kept, weights.output_scale,
                                                      soft->temperature, soft->probabilities) *
                              (1.0 / labels);
    loss.total = loss.cross_entropy * (1.0 - soft->weight) +
                 loss.soft_cross_entropy * (soft->weight * soft->temperature * soft->temperature);
  }
  if (options.z_loss != 0.0) loss.total = loss.total + entropy.z_sum * (options.z_loss / labels);
  const auto& routing = config.routing;
  const int64_t sequences = forward.step_totals.sequences;
  const auto router =
      router_losses(routing, loss.encoder, loss.decoder, sequences > 0 ? sequences : input.encoder.batch_size());
  const bool in_total = options.router_losses;
  add_term(router.load_balance, routing.load_balance_loss_coef, in_total, loss.load_balance_loss, loss);
  add_term(router.router_z, routing.router_z_loss_coef, in_total, loss.router_z_loss, loss);
  add_term(router.importance, routing.importance_loss_coef, in_total, loss.importance_loss, loss);
  add_term(router.load, routing.load_loss_coef, in_total, loss.load_loss, loss);
  return loss;
}

}  // namespace switchyard
