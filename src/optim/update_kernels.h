// Loops of optimisers over pointers, on the CPU with OpenMP. Work is cut into blocks that depend on sizes alone, and
// partial sums are added in the order of the blocks, so results are bit-equal for any number of threads.
#pragma once

#include <cstdint>

#include "kernels/bfloat16.h"

namespace switchyard::kernels {

// AdamW for one tensor of `size` elements; corrections are 1 - beta^step.
struct AdamWStep {
  double rate = 0.0, shrink = 1.0, gradient_scale = 1.0;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double correction1 = 1.0, correction2 = 1.0;
};
void adamw_update(float* parameter, const float* gradient, float* m, float* v, int64_t size, const AdamWStep& step);

// Sum of squares in f64.
double square_sum(const float* values, int64_t size);
double square_sum(const BFloat16* values, int64_t size);

}  // namespace switchyard::kernels
