// Routing: logits in; assignment, gates, losses and statistics out. In f32 (f64 for f64 models) whatever the compute
// dtype ("selective precision", Switch §2.4). Cost O(tokens * num_experts), memory O(tokens + num_experts): no
// [tokens, experts, capacity] tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "base/random.h"

namespace switchyard::ops {

// The router's product in f32: (x * jitter) weight^T + bias. x [tokens, d_model] any dtype (cast up, the caller's
// tensor is not touched), weight [num_experts, d_model], bias [num_experts] or undefined. jitter_noise e > 0: every
// element of the router's own copy is multiplied by U(1 - e, 1 + e) from stream `key`, row t being subsequence
// first_token + t.
at::Tensor router_logits(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double jitter_noise,
                         const NoiseKey& key, int64_t first_token);

// Which rows each expert works on. Rows are listed expert by expert, within an expert in token order.
struct Dispatch {
  at::Tensor token;               // [rows] i64: the token of each row
  std::vector<int64_t> num_rows;  // [num_experts]: rows of each expert; sums to rows
};

struct Routing {
  at::Tensor expert_index;  // [tokens] i64: the chosen expert, -1 where the token was dropped or is padding
  Dispatch dispatch;        // the kept tokens
  at::Tensor gate;          // [rows] f32, in dispatch order: the router probability of the row's expert; differentiable
  at::Tensor
      load_balance_loss;  // [] : Switch eq. 4 without alpha, mean over groups weighted by real tokens; differentiable
  at::Tensor router_z_loss;  // [] : mean over real tokens of logsumexp(logits)^2; differentiable
  // Statistics, no gradient. Over real tokens only.
  at::Tensor expert_load;       // [num_experts] f32: share of tokens that chose each expert, before dropping
  double dropped_fraction = 0;  // tokens without a slot over real tokens
  double router_entropy = 0;    // mean entropy of the router's distribution, nats
};

struct RouteOptions {
  int64_t group_size = 1024;             // consecutive tokens; the last group may be shorter
  std::vector<int64_t> expert_capacity;  // slots per expert, one entry a group
};

// Top-1 (Switch §2.1-2.2, eqs. 1-6). logits [tokens, num_experts] f32 or f64; token_mask [tokens] bool or undefined:
// false is padding, which takes no slot and enters no loss. Ties go to the lowest index; slots go left to right within
// a group; the gate is not renormalised. Throws Error on other shapes, or a number of capacities that does not fit.
Routing route_top1(const at::Tensor& logits, const at::Tensor& token_mask, const RouteOptions& options);

}  // namespace switchyard::ops
