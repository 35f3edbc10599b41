// What a feed-forward network does between its two products: activation, gate, dropout; forward and backward, on rows.
//
// T is float or BFloat16; arithmetic in f32. All arrays [rows, width] contiguous, width a multiple of 16.
#pragma once

#include <cstdint>

#include "kernels/bfloat16.h"
#include "kernels/noise.h"

namespace switchyard::kernels {

enum class Activation { kRelu, kGeluNew, kSilu };  // gelu_new: tanh approximation

// hidden = dropout(activation(a) * b); b null: no gate. hidden may be a.
template <class T>
void hidden_layer(Activation activation, const T* a, const T* b, const RowDropout& dropout, int64_t rows, int64_t width,
                  T* hidden);

// From grad_hidden: grad_a, grad_b (with b only) and, unless null, hidden once more. Without a gate and with ReLU, `a`
// may be the forward's result. grad_a may be grad_hidden.
template <class T>
void hidden_layer_backward(Activation activation, const T* a, const T* b, const RowDropout& dropout,
                           const T* grad_hidden, int64_t rows, int64_t width, T* grad_a, T* grad_b, T* hidden);

}  // namespace switchyard::kernels
