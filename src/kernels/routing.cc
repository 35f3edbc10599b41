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
constexpr int64_t kMinProducts = 1 << 17;  // multiplications below which one thread is faster
constexpr float kLowest = -1e30f;          // pads a row to whole vectors: its power is 0
constexpr int64_t kTile = 4;               // tokens, and experts, whose sums are made together

// The sums of products of kTokens rows of x and kExperts of weight. Each has sixteen partial sums of its own, added up
// in one order, so that it does not matter which tile a token falls into.
template <int kTokens, int kExperts>
void dot_tile(const float* x, const float* weight, int64_t d_model, float* sums, int64_t stride) {
  const int64_t whole = d_model / kLanes * kLanes;
  F32x16 sum[kTokens][kExperts];
  for (auto& row : sum)
    for (auto& element : row) element = splat(0.0f);
  const auto accumulate = [&](const float* rows, const float* columns, int64_t x_stride, int64_t weight_stride) {
    F32x16 column[kExperts];
    for (int expert = 0; expert < kExperts; ++expert) column[expert] = load(columns + expert * weight_stride);
    for (int token = 0; token < kTokens; ++token) {
      const F32x16 value = load(rows + token * x_stride);
      for (int expert = 0; expert < kExperts; ++expert)
        sum[token][expert] = fma(value, column[expert], sum[token][expert]);
    }
  };
  for (int64_t i = 0; i < whole; i += kLanes) accumulate(x + i, weight + i, d_model, d_model);
  if (const int64_t rest = d_model - whole; rest > 0) {
    float rows[kTokens * kLanes] = {}, columns[kExperts * kLanes] = {};
    for (int64_t token = 0; token < kTokens; ++token)
      std::copy_n(x + token * d_model + whole, rest, rows + token * kLanes);
    for (int64_t expert = 0; expert < kExperts; ++expert)
      std::copy_n(weight + expert * d_model + whole, rest, columns + expert * kLanes);
    accumulate(rows, columns, kLanes, kLanes);
  }
  for (int64_t token = 0; token < kTokens; ++token)
    for (int64_t expert = 0; expert < kExperts; ++expert)
      sums[token * stride + expert] = reduce_add(sum[token][expert]);
}

// Tiles of whole kTile experts, then single ones.
template <int kTokens>
void dot_rows(const float* x, const float* weight, int64_t num_experts, int64_t d_model, float* sums) {
  int64_t expert = 0;
  for (; expert + kTile <= num_experts; expert += kTile)
    dot_tile<kTokens, kTile>(x, weight + expert * d_model, d_model, sums + expert, num_experts);
  for (; expert < num_experts; ++expert)
    dot_tile<kTokens, 1>(x, weight + expert * d_model, d_model, sums + expert, num_experts);
}

}  // namespace

void router_logits(const float* x, const float* weight, const float* bias, int64_t tokens, int64_t num_experts,
                   int64_t d_model, float* logits) {
#pragma omp parallel for schedule(static) if (tokens * num_experts * d_model > kMinProducts)
  for (int64_t first = 0; first < tokens; first += kTile) {
    const int64_t end = std::min(tokens, first + kTile);
    if (end - first == kTile)
      dot_rows<kTile>(x + first * d_model, weight, num_experts, d_model, logits + first * num_experts);
    else
      for (int64_t token = first; token < end; ++token)
        dot_rows<1>(x + token * d_model, weight, num_experts, d_model, logits + token * num_experts);
    if (bias != nullptr)
      for (int64_t token = first; token < end; ++token)
        for (int64_t expert = 0; expert < num_experts; ++expert) logits[token * num_experts + expert] += bias[expert];
  }
}

void route_forward(const float* logits, int64_t tokens, int64_t num_experts, float* probability, int64_t* choice,
                   float* log_partition, float* entropy) {
  const int64_t padded = (num_experts + kLanes - 1) / kLanes * kLanes;
  ThreadScratch<float> buffer(padded);
#pragma omp parallel if (tokens * padded > kMinParallel)
  {
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

void top_choices(const float* score, int64_t tokens, int64_t num_experts, int64_t num_choices, int64_t* expert) {
  const int64_t padded = (num_experts + kLanes - 1) / kLanes * kLanes;
  ThreadScratch<float> buffer(padded);
#pragma omp parallel if (tokens * padded > kMinParallel)
  {
    float* row = buffer.data();
#pragma omp for schedule(static)
    for (int64_t token = 0; token < tokens; ++token) {
      std::fill_n(row, padded, -std::numeric_limits<float>::infinity());
      std::copy_n(score + token * num_experts, num_experts, row);
      int64_t* chosen = expert + token * num_choices;
      for (int64_t n = 0; n < num_choices; ++n) {
        F32x16 top = load(row);
        for (int64_t i = kLanes; i < padded; i += kLanes) top = max(top, load(row + i));
        auto found = std::find(row, row + num_experts, reduce_max(top)) - row;
        // NaN, or what is left is -infinity: the first expert not chosen yet.
        const auto taken = [&](int64_t index) { return std::find(chosen, chosen + n, index) != chosen + n; };
        if (found == num_experts || taken(found))
          for (found = 0; taken(found);) ++found;
        chosen[n] = found;
        row[found] = -std::numeric_limits<float>::infinity();
      }
    }
  }
}

void route_backward(const RouteGradient& gradient, int64_t tokens, int64_t num_experts, float* grad_logits) {
#pragma omp parallel for schedule(static) if (tokens * num_experts > kMinParallel)
  for (int64_t token = 0; token < tokens; ++token) {
    float* grad = grad_logits + token * num_experts;
    const float* p = gradient.probability + token * num_experts;
    const bool is_real = gradient.mask == nullptr || gradient.mask[token];
    const int64_t first = gradient.first_entry[token], last = gradient.first_entry[token + 1];
    if (!is_real && first == last) {
      std::fill_n(grad, num_experts, 0.0f);
      continue;
    }
    const float* weight = gradient.weight + token / gradient.group_size * num_experts;
    const float scale = is_real ? 1.0f : 0.0f;
    F32x16 sums = splat(0.0f);
    int64_t counted = 0;
    for (; counted + kLanes <= num_experts; counted += kLanes)
      sums = fma(load(weight + counted), load(p + counted), sums);
    float mean = reduce_add(sums);
    for (; counted < num_experts; ++counted) mean += weight[counted] * p[counted];
    mean *= scale;
    for (int64_t entry = first; entry < last; ++entry)
      mean += gradient.entry_grad[entry] * p[gradient.entry_expert[entry]];
    // d(p_e)/d(logit_i) = p_e ([e = i] - p_i); d(log_partition)/d(logit_i) = p_i
    const float shift = scale * 2.0f * gradient.z_factor * gradient.log_partition[token] - mean;
    for (int64_t expert = 0; expert < num_experts; ++expert)
      grad[expert] = p[expert] * (scale * weight[expert] + shift);
    for (int64_t entry = first; entry < last; ++entry) {
      const int64_t expert = gradient.entry_expert[entry];
      grad[expert] += p[expert] * gradient.entry_grad[entry];
    }
  }
}

}  // namespace switchyard::kernels
