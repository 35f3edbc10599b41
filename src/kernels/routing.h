// The router's arithmetic on logits [tokens, num_experts] f32, forward and backward, one row at a time: a token's
// numbers are the same to the bit whatever tokens are beside it, since an expert is chosen by them.
#pragma once

#include <cstdint>

namespace switchyard::kernels {

// logits = x weight^T, plus bias unless it is null. x [tokens, d_model], weight [num_experts, d_model], bias
// [num_experts], all f32 and of any size.
void router_logits(const float* x, const float* weight, const float* bias, int64_t tokens, int64_t num_experts,
                   int64_t d_model, float* logits);

// For each token: probability [tokens, num_experts] = softmax, choice = argmax (the lowest of equals), log_partition =
// logsumexp, entropy of the distribution in nats.
void route_forward(const float* logits, int64_t tokens, int64_t num_experts, float* probability, int64_t* choice,
                   float* log_partition, float* entropy);

// expert [tokens, num_choices]: each row's experts with the highest scores, best first; equals in order of index.
// score [tokens, num_experts]; num_choices <= num_experts.
void top_choices(const float* score, int64_t tokens, int64_t num_experts, int64_t num_choices, int64_t* expert);

// The gradient of sum_entries grad * p[token][expert] + sum_te weight[t / group_size][e] p[t][e] + z_factor sum_t
// log_partition[t]^2 with p = softmax(logits). Entries of token t are first_entry[t] to first_entry[t + 1]. Where mask
// is false (nowhere if null) the last two terms are absent. weight [groups, num_experts], grad_logits [tokens,
// num_experts].
struct RouteGradient {
  const float* probability;
  const float* log_partition;
  const bool* mask;
  const int64_t* first_entry;
  const int64_t* entry_expert;
  const float* entry_grad;
  const float* weight;
  int64_t group_size;
  float z_factor;
};
void route_backward(const RouteGradient& gradient, int64_t tokens, int64_t num_experts, float* grad_logits);

}  // namespace switchyard::kernels
