// The hidden layer of dense and expert feed-forward networks over tensors.
#pragma once

#include <optional>
#include <string>

#include "kernels/hidden_layer.h"
#include "ops/backend.h"

namespace switchyard::ops {

// The kernels' form of an activation's name; none for "gelu" (erf) and for unknown names.
inline std::optional<kernels::Activation> kernel_activation(const std::string& name) {
  if (name == "relu") return kernels::Activation::kRelu;
  if (name == "gelu_new") return kernels::Activation::kGeluNew;
  if (name == "silu") return kernels::Activation::kSilu;
  return std::nullopt;
}

// All tensors [rows, width] of one fused dtype, contiguous; undefined stands for absent.
struct HiddenLayer {
  kernels::Activation activation;
  kernels::RowDropout dropout;

  void forward(const at::Tensor& a, const at::Tensor& b, const at::Tensor& hidden) const {
    with_kernel_type(a.scalar_type(), [&](auto type) {
      using T = decltype(type);
      kernels::hidden_layer(activation, read<T>(a), b.defined() ? read<T>(b) : nullptr, dropout, a.size(0), a.size(1),
                            write<T>(hidden));
    });
  }
  void backward(const at::Tensor& a, const at::Tensor& b, const at::Tensor& grad_hidden, const at::Tensor& grad_a,
                const at::Tensor& grad_b, const at::Tensor& hidden) const {
    with_kernel_type(a.scalar_type(), [&](auto type) {
      using T = decltype(type);
      kernels::hidden_layer_backward(activation, read<T>(a), b.defined() ? read<T>(b) : nullptr, dropout,
                                     read<T>(grad_hidden), a.size(0), a.size(1), write<T>(grad_a),
                                     b.defined() ? write<T>(grad_b) : nullptr,
                                     hidden.defined() ? write<T>(hidden) : nullptr);
    });
  }
};

}  // namespace switchyard::ops
