// Optimiser updates over f32 pointers, on the CPU with OpenMP. Work is cut into blocks that depend on sizes alone, and
// partial sums are added in the order of the blocks, so results are bit-equal for any number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace switchyard::kernels {

// One update's numbers that are the same for all tensors.
struct AdafactorStep {
  double decay = 0.0;               // beta2_t
  double gradient_scale = 1.0;      // multiplies gradients first
  double clipping_threshold = 1.0;  // 0: off
  double epsilon1 = 1e-30;
  double epsilon2 = 1e-3;
  bool scale_by_parameter = true;
};

// One matrix (one expert's, or a whole parameter) and its second moments: factored if `v` is null, else elementwise.
struct AdafactorMatrix {
  float* parameter = nullptr;       // [rows, columns]
  const float* gradient = nullptr;  // [rows, columns]
  float* row_moment = nullptr;      // [rows]: mean over the columns
  float* column_moment = nullptr;   // [columns]: mean over the rows
  float* v = nullptr;               // [rows, columns]
  int64_t rows = 0, columns = 0;
  double rate = 0.0;    // learning rate, before scaling by the parameter's RMS
  double shrink = 1.0;  // the parameter is multiplied by this first (decoupled weight decay)
};

// Adafactor (Shazeer, Stern 2018, algorithms 4 and 5) for all matrices. Memory is read three times where a matrix is
// too large for the caches: for the moments, for the RMS of the update, and to apply it.
void adafactor_update(std::span<const AdafactorMatrix> matrices, const AdafactorStep& step);

// AdamW for one tensor of `size` elements; corrections are 1 - beta^step.
struct AdamWStep {
  double rate = 0.0, shrink = 1.0, gradient_scale = 1.0;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double correction1 = 1.0, correction2 = 1.0;
};
void adamw_update(float* parameter, const float* gradient, float* m, float* v, int64_t size, const AdamWStep& step);

// Sum of squares in f64.
double square_sum(const float* values, int64_t size);

}  // namespace switchyard::kernels
