// Tensors between the libraries and torch's Python: the same memory, by DLPack.
#pragma once

#include <ATen/core/Tensor.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

namespace switchyard {

// A torch.Tensor that shares the memory; None for an undefined one. Without gradient.
nanobind::object to_torch(const at::Tensor& tensor);

// Ids or masks as the package's Python code hands them over.
using IdTable = nanobind::ndarray<const int64_t, nanobind::ndim<2>, nanobind::c_contig, nanobind::device::cpu>;

// A copy on `device`: [batch, length] i64. Undefined for none.
at::Tensor to_tensor(const std::optional<IdTable>& table, at::Device device);

}  // namespace switchyard
