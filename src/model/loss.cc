#include "model/loss.h"

#include <ATen/TensorOperators.h>

#include "base/error.h"
#include "ops/cross_entropy.h"

namespace switchyard {
namespace {

void add_router_losses(const RoutingConfig& routing, const StackOutput& stack, double share, bool in_total,
                       Loss& loss) {
  for (const auto& layer : stack.sparse_layers) {
    loss.load_balance_loss += share * layer.routing.load_balance_loss.item<double>();
    loss.router_z_loss += share * layer.routing.router_z_loss.item<double>();
    if (!in_total) continue;
    if (routing.load_balance_loss_coef != 0.0)
      loss.total = loss.total + layer.routing.load_balance_loss * (routing.load_balance_loss_coef * share);
    if (routing.router_z_loss_coef != 0.0)
      loss.total = loss.total + layer.routing.router_z_loss * (routing.router_z_loss_coef * share);
  }
}

}  // namespace

Loss compute_loss(const ModelConfig& config, const ComputeWeights& weights, const LossInput& input,
                  const ForwardOptions& forward, const LossOptions& options) {
  Loss loss;
  loss.encoder = encode(config, weights, input.encoder_ids, input.encoder_mask, forward);
  loss.decoder =
      decode(config, weights, input.decoder_ids, input.decoder_mask, loss.encoder.hidden, input.encoder_mask, forward);
  const auto entropy = ops::linear_cross_entropy(loss.decoder.hidden.reshape({-1, config.d_model}), weights.output,
                                                 input.labels.reshape({-1}), weights.output_scale);
  loss.num_labels = entropy.num_labels;
  loss.num_correct = entropy.num_correct;
  const auto labels =
      static_cast<double>(std::max<int64_t>(1, options.step_labels > 0 ? options.step_labels : entropy.num_labels));
  loss.cross_entropy = entropy.sum * (1.0 / labels);
  loss.total = loss.cross_entropy;
  if (options.z_loss != 0.0) loss.total = loss.total + entropy.z_sum * (options.z_loss / labels);
  add_router_losses(config.routing, loss.encoder, options.encoder_share, options.router_losses, loss);
  add_router_losses(config.routing, loss.decoder, options.decoder_share, options.router_losses, loss);
  return loss;
}

}  // namespace switchyard
