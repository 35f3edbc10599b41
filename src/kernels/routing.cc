#include "kernels/routing.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/lanes.h"
#include "kernels/scratch.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kMinParallel = 16384;
constexpr float kLowest = -1e30f;  // pads a row to whole vectors: its power is 0

}  // namespace

void route_forward(const float* logits, int64_t tokens, int64_t num_experts, float* probability, int64_t* choice,
                   float* log_partition, float* entropy) {
  const int64_t padded = (num_experts + kLanes - 1) / kLanes * kLanes;
#pragma omp parallel if (tokens * padded > kMinParallel)
  {
    Scratch<float> buffer(padded);
    float* row = buffer.data();
    std::fill_n(row, padded, kLowest);
#pragma omp for schedule(static)
    for (int64_t token = 0; token < tokens; ++token) {
      std::copy_n(logits + token * num_experts, num_experts, row);
      F32x16 top = load(row);
      for (int64_t i = kLanes; i < padded; i += kLanes) top = max(top, load(row + i));
      const float largest = reduce_max(top);
      const auto first = std::find(row, row + num_experts, largest);
      choice[token] = first == row + num_experts ? 0 : first - row;  // none equal: NaN

      constexpr float kLog2e = std::numbers::log2e_v<float>;
      const F32x16 shift = splat(-largest);
      F32x16 sum = splat(0.0f), weighted = splat(0.0f);
      for (int64_t i = 0; i < padded; i += kLanes) {
        const F32x16 centred = load(row + i) + shift;
        const F32x16 power = exp2(centred * splat(kLog2e));
        sum = sum + power;
        // Padding and hidden experts have power 0 and a huge distance; bounded, their product stays 0.
        weighted = fma(power, max(centred, splat(-1e4f)), weighted);
        store(row + i, power);
      }
      const float total = reduce_add(sum), inverse = 1.0f / total, log_total = std::log(total);
      for (int64_t i = 0; i < num_experts; ++i) probability[token * num_experts + i] = row[i] * inverse;
      log_partition[token] = largest + log_total;
      entropy[token] = log_total - reduce_add(weighted) * inverse;
      std::fill_n(row + num_experts, padded - num_experts, kLowest);
    }
  }
}

void route_backward(const RouteGradient& gradient, int64_t tokens, int64_t num_experts, float* grad_logits) {
#pragma omp parallel for schedule(static) if (tokens * num_experts > kMinParallel)
  for (int64_t token = 0; token < tokens; ++token) {
    float* grad = grad_logits + token * num_experts;
    if (gradient.mask != nullptr && !gradient.mask[token]) {
      std::fill_n(grad, num_experts, 0.0f);
      continue;
    }
    const float* p = gradient.probability + token * num_experts;
    const float* weight = gradient.weight + token / gradient.group_size * num_experts;
    const int64_t choice = gradient.choice[token];
    const float gate_grad = gradient.gate_grad[token];
    F32x16 sums = splat(0.0f);
    int64_t counted = 0;
    for (; counted + kLanes <= num_experts; counted += kLanes)
      sums = fma(load(weight + counted), load(p + counted), sums);
    float mean = gate_grad * p[choice] + reduce_add(sums);
    for (; counted < num_experts; ++counted) mean += weight[counted] * p[counted];
    // d(p_e)/d(logit_i) = p_e ([e = i] - p_i); d(log_partition)/d(logit_i) = p_i
    const float shift = 2.0f * gradient.z_factor * gradient.log_partition[token] - mean;
    for (int64_t expert = 0; expert < num_experts; ++expert) grad[expert] = p[expert] * (weight[expert] + shift);
    grad[choice] += p[choice] * gate_grad;
  }
}

}  // namespace switchyard::kernels
