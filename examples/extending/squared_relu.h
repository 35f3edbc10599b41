// An operation of one's own: max(x, 0)^2 (So et al. 2021), fused on the processor.
#pragma once

#include <ATen/core/Tensor.h>

namespace switchyard::examples {

// x of any shape, f32, bf16 or f64; the result has its shape and dtype. bf16 is squared in f32.
at::Tensor squared_relu(const at::Tensor& x);

// The plain form, of ATen functions: any device and dtype.
at::Tensor squared_relu_reference(const at::Tensor& x);

}  // namespace switchyard::examples
