// Adafactor (Shazeer, Stern 2018, algorithms 4 and 5) over pointers, on the CPU with OpenMP. Work is cut into blocks
// that depend on sizes alone, and partial sums are added in the order of the blocks, so results are bit-equal for any
// number of threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/bfloat16.h"

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
  float* parameter = nullptr;                   // [rows, columns]
  BFloat16* copy = nullptr;                     // [rows, columns]: gets the new values, rounded; null: none
  const float* gradient = nullptr;              // [rows, columns], or
  const BFloat16* bfloat16_gradient = nullptr;  // this one
  float* row_moment = nullptr;                  // [rows]: mean over the columns
  float* column_moment = nullptr;               // [columns]: mean over the rows
  float* v = nullptr;                           // [rows, columns]
  // Sum of squares of the parameter, read and written: each update knows that of the values it writes, so that the next
  // one need not read them for it. Negative: not known. The same bits whether it is known or not.
  double* parameter_squares = nullptr;
  int64_t rows = 0, columns = 0;
  double rate = 0.0;    // learning rate, before scaling by the parameter's RMS
  double shrink = 1.0;  // the parameter is multiplied by this first (decoupled weight decay)
};

// Sums of squares of a gradient as it was given.
struct GradientSums {
  std::vector<float> rows;      // [rows]; empty where moments are elementwise
  std::vector<double> columns;  // [columns]; likewise
  double total = 0.0;           // not finite exactly if an element or its square is not
};

// The first of two passes over the gradients: what their norm is made of, and the factored moments.
std::vector<GradientSums> adafactor_read(std::span<const AdafactorMatrix> matrices);

// The update. Reads gradients twice more (once for the update's RMS, which clips it) and weights once; a matrix whose
// gradient is all zeros, as that of an expert without rows, is left as it is but for its moments and its decay.
void adafactor_update(std::span<const AdafactorMatrix> matrices, std::span<const GradientSums> sums,
                      const AdafactorStep& step);

}  // namespace switchyard::kernels
