// Products of rows with one matrix a group (the linear layers: one group; the experts: one group an expert), without
// autograd: the pieces of forward and backward passes.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/product.h"

namespace switchyard::ops {

using kernels::Epilogue;

// a [rows, in], the groups' rows one after the other, by b [groups, out, in] transposed: [rows, out]. Writes to, or
// with Epilogue::kAdd adds to, `out` if it is given.
at::Tensor product_transposed(const at::Tensor& a, const at::Tensor& b, const std::vector<int64_t>& num_rows,
                              Epilogue epilogue = Epilogue::kStore, at::Tensor out = {});

// a [rows, in] by b [groups, in, out]: [rows, out].
at::Tensor product(const at::Tensor& a, const at::Tensor& b, const std::vector<int64_t>& num_rows,
                   Epilogue epilogue = Epilogue::kStore, at::Tensor out = {});

// grad^T rows of each group: [groups, out, in] of grad [rows, out] and rows [rows, in]; 0 for a group without rows.
at::Tensor product_of_columns(const at::Tensor& grad, const at::Tensor& rows, const std::vector<int64_t>& num_rows);

}  // namespace switchyard::ops
