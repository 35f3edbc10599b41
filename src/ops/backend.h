// Where an operation runs: the processor's kernels or the plain composition of ATen functions, and how kernels see a
// tensor's data.
#pragma once

#include <ATen/core/Tensor.h>

#include <initializer_list>

#include "kernels/bfloat16.h"

namespace switchyard::ops {

// True selects the plain forms everywhere (`--kernels reference`). Set once at start, before any op runs.
void use_reference_kernels(bool reference);

// What a kernel asks of the processor and of the sizes that it works along.
enum class Kernel {
  kElements,  // by elements or whole rows: any size
  kVectors,   // sixteen elements at a time: multiples of 16
  kTiles,     // brgemm over tiles that the kernel pads: any size
  kPanels,    // brgemm over packed panels: multiples of 64
};

// The one answer to "is there a fast path": whether `kernel` takes a tensor like x, f32 or bf16 on the CPU, along
// `sizes`. Where it does not, the operation's plain form runs.
bool is_fused(const at::Tensor& x, Kernel kernel = Kernel::kElements, std::initializer_list<int64_t> sizes = {});

// How often is_fused() said yes and no in this process. A test of a kernel looks here that it was the kernel which ran.
struct KernelChoices {
  int64_t fused = 0, plain = 0;
};
KernelChoices kernel_choices(Kernel kernel);

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
