// Products of rows with matrices, each taking its own run of rows (a linear layer: one matrix; the experts: a matrix
// each), without autograd: the pieces of forward and backward passes. num_rows [matrices]: rows of each, one run after
// the other.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/product.h"

namespace switchyard::ops {

using kernels::Epilogue;
using kernels::kFewRows;

// a [rows, in] by b [matrices, out, in] transposed: [rows, out]; b may be quantised (ops/quantized.h). Writes to, or
// with Epilogue::kAdd adds to, `out` if it is given. packs_few: as in kernels::Product.
at::Tensor product_transposed(const at::Tensor& a, const at::Tensor& b, const std::vector<int64_t>& num_rows,
                              Epilogue epilogue = Epilogue::kStore, at::Tensor out = {}, bool packs_few = false);

// a [rows, in] by one matrix b [out, in] transposed, the sums as they are: [rows, out] f32. a and b of one dtype that
// Kernel::kPanels takes, or b quantised, in a multiple of 64, out any number.
at::Tensor product_f32(const at::Tensor& a, const at::Tensor& b);

// a [rows, in] by b [matrices, in, out]: [rows, out].
at::Tensor product(const at::Tensor& a, const at::Tensor& b, const std::vector<int64_t>& num_rows,
                   Epilogue epilogue = Epilogue::kStore, at::Tensor out = {});

// grad^T rows over the rows of each matrix: [matrices, out, in] of grad [rows, out] and rows [rows, in]; 0 for a matrix
// without rows.
at::Tensor product_of_columns(const at::Tensor& grad, const at::Tensor& rows, const std::vector<int64_t>& num_rows);

}  // namespace switchyard::ops
