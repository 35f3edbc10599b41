// The training loss of one (micro-)batch and its terms (Switch §2.2 eq. 4, ST-MoE eq. 5, T5's output z-loss).
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/transformer.h"
#include "ops/soft_cross_entropy.h"

namespace switchyard {

struct LossInput {
  TokenLayout encoder;
  TokenLayout decoder;  // labels shifted right; its mask: real decoder positions, for routing
  at::Tensor labels;    // [batch, decoder_length] i64, -100 = ignored
};

// A teacher's part of the loss (Switch §4.2): (1 - weight) * cross entropy against the labels + weight * temperature^2
// * cross entropy against the teacher's probabilities, where both models' logits are divided by the temperature. Token
// numbers count through [batch, decoder_length].
struct SoftTargets {
  double weight = 0.25;
  double temperature = 1.0;
  ops::TeacherProbabilities probabilities;
};

// A micro-batch's part of its step: sums are divided by the whole step's counts (these and
// ForwardOptions::step_totals), so that any split gives the same loss.
struct LossOptions {
  double z_loss = 0.0;                        // T5: 1e-4 in training, 0 in evaluation
  int64_t step_labels = 0;                    // kept labels of the whole step; 0: those of this batch
  bool router_losses = true;                  // adds the weighted balance and z terms to `total`
  const SoftTargets* soft_targets = nullptr;  // null: labels alone
};

struct Loss {
  at::Tensor total;               // [] f32, differentiable: what training minimises
  at::Tensor cross_entropy;       // [] f32: this batch's part of the mean cross entropy, differentiable
  at::Tensor soft_cross_entropy;  // [] f32: the same against soft targets, their weight not applied; undefined without
  int64_t num_labels = 0, num_correct = 0;
  at::Tensor token_losses;  // [batch * decoder_length] f32: nats, 0 where ignored; without gradient
  // Over sparse layers as load_balance_layers says, without coefficients: this batch's part of the step's.
  double load_balance_loss = 0.0;
  double router_z_loss = 0.0;
  double importance_loss = 0.0;
  double load_loss = 0.0;  // 0 without its coefficient
  StackOutput encoder, decoder;
};

// The sparse layers' losses over both stacks as load_balance_layers says, without coefficients. step_sequences: those
// of the whole step. [], differentiable; undefined where no layer has one.
struct RouterLosses {
  at::Tensor load_balance, router_z, importance, load;
};
RouterLosses router_losses(const RoutingConfig& routing, const StackOutput& encoder, const StackOutput& decoder,
                           int64_t step_sequences);

Loss compute_loss(const ModelConfig& config, const ComputeWeights& weights, const LossInput& input,
                  const ForwardOptions& forward, const LossOptions& options);

}  // namespace switchyard
