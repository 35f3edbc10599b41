// Routing: logits in; assignment, gates, losses and statistics out. In f32 (f64 for f64 models) whatever the compute
// dtype ("selective precision", Switch §2.4). Cost O(tokens * num_experts), memory O(tokens * num_experts + rows): no
// [tokens, experts, capacity] tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "base/random.h"
#include "ops/dispatch.h"
#include "ops/routing_counts.h"
#include "ops/routing_words.h"

namespace switchyard::ops {

// What multiplies the router's own copy of its input, element by element (Switch App. C, table 11). At most one.
struct RouterInputNoise {
  double jitter = 0.0;   // e: factors U(1 - e, 1 + e)
  double dropout = 0.0;  // rate: factors 0 or 1 / (1 - rate)
  NoiseKey key = {};
  int64_t first_token = 0;  // row t draws subsequence first_token + t
  at::Tensor number = {};   // [tokens] i64: or number[t]
};

// The router's product in f32: (x * noise) weight^T + bias. x [tokens, d_model] any dtype (cast up, the caller's tensor
// is not touched), weight [num_experts, d_model], bias [num_experts] or undefined. On the CPU in f32 a token's
// logits are the same to the bit alone and in any batch.
at::Tensor router_logits(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const RouterInputNoise& noise);

struct RouteOptions {
  RouterKind router = RouterKind::kTopK;
  RouterScore router_score = RouterScore::kSoftmax;
  int64_t num_selected_experts = 1;      // choices of a token; of kNoTokenLeftBehind: those that it tries
  int64_t group_size = 1024;             // consecutive tokens; the last group may be shorter
  std::vector<int64_t> expert_capacity;  // slots per expert, one entry a group
  int64_t loss_group_size = 0;           // consecutive tokens over which f and P are means; 0: group_size
  DropPriority drop_priority = DropPriority::kChoice;
  GateNormalization gate_normalization = GateNormalization::kNone;
  SecondExpertPolicy second_expert_policy = SecondExpertPolicy::kAll;
  double second_expert_threshold = 0.2;
  LoadBalanceChoices load_balance_choices = LoadBalanceChoices::kFirst;
  PaddingRule padding = PaddingRule::kIgnored;
  at::Tensor selection_bias = {};  // [num_experts] or undefined: added to scores for choosing only (DeepSeek-V3)
  // > 0: experts are drawn from softmax(logits / temperature) without replacement (Mesh switch_policy "sample").
  double sample_temperature = 0.0;
  // bf16: experts are chosen by probabilities rounded to it, as HF does. Ties go to the lowest index.
  at::ScalarType selection_dtype = at::kFloat;
  NoiseKey noise = {};      // of sampling; kSampled draws from the same under purpose kSecondExpert
  int64_t first_token = 0;  // token t draws subsequence first_token + t
  at::Tensor number = {};   // [tokens] i64: or number[t]
  // What means divide by: tokens of the whole step that this call is a part of, with and without padding, so that the
  // parts' losses add up. 0: those of this call.
  int64_t step_tokens = 0, step_real_tokens = 0;
};

struct Routing {
  at::Tensor expert_index;  // [tokens] i64: of its experts the one with the largest gate, -1 where the token has none
  Dispatch dispatch;        // the kept (token, expert) pairs
  at::Tensor gate;          // [rows] f32, in dispatch order; differentiable
  // Losses without their coefficients, [] and differentiable: this call's part of the step's means, but for importance.
  // Switch eq. 4, mean over groups weighted by their tokens; 0 in expert choice
  at::Tensor load_balance_loss;
  at::Tensor router_z_loss;    // mean over real tokens of logsumexp(logits)^2
  at::Tensor importance_loss;  // squared coefficient of variation of sum_t p (Shazeer et al. 2017), over this call
  RoutingCounts counts;
};

// logits [tokens, num_experts] f32 or f64; token_mask [tokens] bool or undefined: false is padding, which takes no slot
// and enters no loss. Throws Error on other shapes, a number of capacities that does not fit, or more choices than
// experts.
Routing route(const at::Tensor& logits, const at::Tensor& token_mask, const RouteOptions& options);

// Routing without a router: expert [tokens] i64 is given (hash layers, Roller et al. 2021), gates are 1 and losses 0 in
// `dtype` (f32 or f64). Slots left to right as in route(). Throws Error on an expert that is not one of num_experts,
// and on a priority that asks for probabilities.
Routing route_to(const at::Tensor& expert, int64_t num_experts, const at::Tensor& token_mask,
                 const RouteOptions& options, at::ScalarType dtype);

// Load loss of Shazeer et al. 2017 (App. A, eq. 8-11): squared coefficient of variation over experts of sum_t P(e among
// the num_selected_experts best of t), the noise of the comparison being normal with std `noise_std` (V-MoE takes 1 /
// num_experts). Means over real tokens. [], differentiable in logits [tokens, num_experts].
at::Tensor load_loss(const at::Tensor& logits, const at::Tensor& token_mask, int64_t num_selected_experts,
                     double noise_std);

// Token t's experts by falling gate, -1 after the last. [tokens, width] i64; more than `width` are cut.
at::Tensor experts_of_tokens(const Routing& routing, int64_t tokens, int64_t width);

}  // namespace switchyard::ops
