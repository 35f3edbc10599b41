// The router's arithmetic on logits [tokens, num_experts] f32, forward and backward, one row at a time.
#pragma once

#include <cstdint>

namespace switchyard::kernels {

// For each token: probability [tokens, num_experts] = softmax, choice = argmax (the lowest of equals), log_partition =
// logsumexp, entropy of the distribution in nats.
void route_forward(const float* logits, int64_t tokens, int64_t num_experts, float* probability, int64_t* choice,
                   float* log_partition, float* entropy);

// The gradient of sum_t gate_grad[t] p[t][choice[t]] + sum_te weight[t / group_size][e] p[t][e] + z_factor sum_t
// log_partition[t]^2, over tokens where mask is true (all if null); 0 elsewhere. gate_grad [tokens], weight [groups,
// num_experts], grad_logits [tokens, num_experts].
struct RouteGradient {
  const float* probability;
  const int64_t* choice;
  const float* log_partition;
  const bool* mask;
  const float* gate_grad;
  const float* weight;
  int64_t group_size;
  float z_factor;
};
void route_backward(const RouteGradient& gradient, int64_t tokens, int64_t num_experts, float* grad_logits);

}  // namespace switchyard::kernels
