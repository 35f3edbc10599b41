// The differentiable outputs of a router as functions of its logits: gates and losses.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/assignment.h"

namespace switchyard::ops {

// What the logits say about each token, without gradient.
struct TokenStatistics {
  at::Tensor score;          // [tokens, num_experts]: softmax or sigmoid, as gates and slots go by it
  at::Tensor probability;    // [tokens, num_experts]: the score over its sum, a distribution
  at::Tensor best;           // [tokens] i64, argmax, the first of equal values
  at::Tensor log_partition;  // [tokens]
  at::Tensor entropy;        // [tokens], nats
};
TokenStatistics token_statistics(const at::Tensor& logits, RouterScore score);

struct RouterOutputs {
  at::Tensor gate;               // [rows]
  at::Tensor load_balance_loss;  // []
  at::Tensor router_z_loss;      // []
  at::Tensor importance_loss;    // []
  at::Tensor importance;         // [num_experts] f64: sum of probabilities over real tokens; no gradient
};

// What the outputs need besides the logits; on the CPU.
struct RoutedTokens {
  const Assignment& assignment;
  at::Tensor choice;          // [tokens, num_selected_experts] i64, -1 where not used; undefined in expert choice
  at::Tensor mask;            // [tokens] bool or undefined
  at::Tensor balance_weight;  // [loss groups, num_experts] f64: weights of probabilities, whose sum is the balance loss
  int64_t loss_group_size;
  double num_real;  // what means over real tokens divide by: the whole step's
};
RouterOutputs router_outputs(const at::Tensor& logits, const TokenStatistics& statistics, const RoutedTokens& routed,
                             RouterScore score, GateNormalization normalization);

}  // namespace switchyard::ops
