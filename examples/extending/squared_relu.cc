#include "squared_relu.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/relu.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "kernels/bfloat16.h"
#include "ops/backend.h"

namespace switchyard::examples {
namespace {

// Kernels see pointers and sizes. In the project they lie in src/kernels, which no header of torch enters.
float from_float(float value, float) { return value; }
kernels::BFloat16 from_float(float value, kernels::BFloat16) { return kernels::to_bfloat16(value); }

template <class T>
void squared_relu_forward(const T* x, T* y, int64_t size) {
  for (int64_t index = 0; index < size; ++index) {
    const float positive = std::max(kernels::to_float(x[index]), 0.0F);
    y[index] = from_float(positive * positive, T{});
  }
}

template <class T>
void squared_relu_backward(const T* x, const T* grad_y, T* grad_x, int64_t size) {
  for (int64_t index = 0; index < size; ++index)
    grad_x[index] =
        from_float(2.0F * std::max(kernels::to_float(x[index]), 0.0F) * kernels::to_float(grad_y[index]), T{});
}

struct SquaredRelu : torch::autograd::Function<SquaredRelu> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& input) {
    const auto x = input.contiguous();
    context->save_for_backward({x});
    auto y = at::empty_like(x);
    ops::with_kernel_type(x.scalar_type(), [&](auto type) {
      using T = decltype(type);
      squared_relu_forward(ops::read<T>(x), ops::write<T>(y), x.numel());
    });
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto x = context->get_saved_variables()[0];
    const auto grad_y = grads[0].contiguous();
    auto grad_x = at::empty_like(x);
    ops::with_kernel_type(x.scalar_type(), [&](auto type) {
      using T = decltype(type);
      squared_relu_backward(ops::read<T>(x), ops::read<T>(grad_y), ops::write<T>(grad_x), x.numel());
    });
    return {grad_x};
  }
};

}  // namespace

at::Tensor squared_relu(const at::Tensor& x) {
  return ops::is_fused(x) ? SquaredRelu::apply(x) : squared_relu_reference(x);
}

at::Tensor squared_relu_reference(const at::Tensor& x) { return at::relu(x).square(); }

}  // namespace switchyard::examples
