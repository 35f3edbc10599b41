// RMSNorm over rows, forward and backward (T5 §2.1): y = scale * x / sqrt(mean(x^2) + epsilon), statistics in f32.
//
// A row's result does not depend on the rows beside it. Out is float or BFloat16. x, y and their gradients [rows,
// d_model] contiguous, scale [d_model]; d_model a multiple of 16.
#pragma once

#include <cstdint>

#include "kernels/bfloat16.h"

namespace switchyard::kernels {

template <class Out>
void rms_norm(const float* x, const float* scale, Out* y, int64_t rows, int64_t d_model, float epsilon);

// grad_x and grad_scale are overwritten. The sum over rows for grad_scale has an order given by the shape.
template <class Out>
void rms_norm_backward(const float* x, const float* scale, const Out* grad_y, float* grad_x, float* grad_scale,
                       int64_t rows, int64_t d_model, float epsilon);

}  // namespace switchyard::kernels
