// Quantised matrices as tensors: rows of bytes (kernels/quantized.h), int8 in form of kChar, int4 of kByte tensors.
// They stand where a matrix stands in products without gradient; cut, joined and stacked along any axis but the last.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "kernels/quantized.h"

namespace switchyard::ops {

using kernels::QuantizedForm;

// The form that a dtype stands for, in memory and where one of storage is asked for; none for those of values.
std::optional<QuantizedForm> quantized_form(at::ScalarType dtype);
at::ScalarType quantized_dtype(QuantizedForm form);
bool is_quantized(const at::Tensor& matrix);
bool is_quantized(at::ScalarType dtype);

// The last axis of [..., out, in]: what a product with it takes. Of any matrix.
int64_t inputs_of(const at::Tensor& matrix);
// Whether rows of `dtype` can be multiplied by the matrix: it is of their dtype, or quantised and they are bf16.
bool takes_rows_of(const at::Tensor& matrix, at::ScalarType dtype);

// [..., out, in] of f32, in a multiple of 64 (else Error), to [..., out, bytes].
at::Tensor quantize(const at::Tensor& matrix, QuantizedForm form);
at::Tensor dequantize(const at::Tensor& matrix, at::ScalarType dtype);

// The values of a matrix that may be quantised, in `dtype`: for operations that have no quantised form.
at::Tensor values_of(const at::Tensor& matrix, at::ScalarType dtype);

}  // namespace switchyard::ops
