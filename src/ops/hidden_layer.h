// The hidden layer of dense and expert feed-forward networks over tensors.
#pragma once

#include <optional>

#include "kernels/hidden_layer.h"
#include "ops/activation.h"
#include "ops/backend.h"

namespace switchyard::ops {

// The kernels' form of an activation; none for kGelu (erf).
inline std::optional<kernels::Activation> kernel_activation(Activation activation) {
  switch (activation) {
    case Activation::kRelu:
      return kernels::Activation::kRelu;
    case Activation::kGeluNew:
      return kernels::Activation::kGeluNew;
    case Activation::kSilu:
      return kernels::Activation::kSilu;
    case Activation::kGelu:
      break;
  }
  return std::nullopt;
}

// Whether the kernels can draw the noise of a part of the hidden layer that begins with this feature.
inline bool has_aligned_noise(double dropout_rate, int64_t first_feature) {
  return dropout_rate == 0.0 || first_feature % 64 == 0;
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
