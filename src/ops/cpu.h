// When the fused CPU forms run, and how they see a tensor's data.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/bfloat16.h"
#include "kernels/brgemm.h"
#include "ops/layers.h"

namespace switchyard::ops {

// The fused forms take f32 and bf16 on the CPU.
inline bool is_fused(const at::Tensor& x) {
  return !reference_kernels() && x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}
inline bool is_fused_product(const at::Tensor& x) {
  return is_fused(x) &&
         (x.scalar_type() == at::kFloat ? kernels::brgemm_available_f32() : kernels::brgemm_available_bf16());
}

template <class T>
const T* read(const at::Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <class T>
T* write(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// Calls function(T{}) with the kernels' type of a dtype that is_fused() allows.
template <class Function>
decltype(auto) with_kernel_type(at::ScalarType dtype, Function&& function) {
  if (dtype == at::kBFloat16) return function(kernels::BFloat16{});
  return function(float{});
}

}  // namespace switchyard::ops
