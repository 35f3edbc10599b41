#include "optim/update_kernels.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace switchyard::kernels {
namespace {

constexpr int64_t kBlockElements = int64_t{1} << 16;

template <class T>
double square_sum_of(const T* values, int64_t size) {
  const int64_t num_blocks = (size + kBlockElements - 1) / kBlockElements;
  std::vector<double> sums(num_blocks);
#pragma omp parallel for schedule(static) if (num_blocks > 1)
  for (int64_t block = 0; block < num_blocks; ++block) {
    double sum = 0.0;
    const int64_t end = std::min(size, (block + 1) * kBlockElements);
#pragma omp simd reduction(+ : sum)
    for (int64_t i = block * kBlockElements; i < end; ++i) {
      const double value = to_float(values[i]);
      sum += value * value;
    }
    sums[block] = sum;
  }
  double total = 0.0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace

void adamw_update(float* __restrict parameter, const float* __restrict gradient, float* __restrict m,
                  float* __restrict v, int64_t size, const AdamWStep& step) {
  const auto scale = static_cast<float>(step.gradient_scale), shrink = static_cast<float>(step.shrink);
  const auto kept1 = static_cast<float>(step.beta1), added1 = static_cast<float>(1.0 - step.beta1);
  const auto kept2 = static_cast<float>(step.beta2), added2 = static_cast<float>(1.0 - step.beta2);
  const auto root_correction2 = static_cast<float>(1.0 / std::sqrt(step.correction2));
  const auto rate = static_cast<float>(step.rate / step.correction1), epsilon = static_cast<float>(step.epsilon);
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < size; ++i) {
    const float g = gradient[i] * scale;
    m[i] = kept1 * m[i] + added1 * g;
    v[i] = kept2 * v[i] + added2 * g * g;
    parameter[i] = parameter[i] * shrink - rate * m[i] / (std::sqrt(v[i]) * root_correction2 + epsilon);
  }
}

double square_sum(const float* values, int64_t size) { return square_sum_of(values, size); }
double square_sum(const BFloat16* values, int64_t size) { return square_sum_of(values, size); }

}  // namespace switchyard::kernels
