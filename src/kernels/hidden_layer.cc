#include "kernels/hidden_layer.h"

#include <numbers>

#include "kernels/lanes.h"
#include "kernels/scratch.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kMinParallel = 16384;

struct ValueAndSlope {
  F32x16 value, slope;
};

inline F32x16 sigmoid(F32x16 x) { return splat(1.0f) / (splat(1.0f) + exp2(x * splat(-std::numbers::log2e_v<float>))); }

// Both smooth activations are x sigmoid(v(x)): silu with v = x, gelu_new with v = 2 sqrt(2/pi) (x + 0.044715 x^3).
template <Activation kActivation>
ValueAndSlope activate(F32x16 x) {
  if constexpr (kActivation == Activation::kRelu) {
    return {max(splat(0.0f), x), where_positive(x, splat(1.0f))};  // NaN stays NaN
  } else {
    F32x16 inner = x, inner_slope = splat(1.0f);
    if constexpr (kActivation == Activation::kGeluNew) {
      constexpr float kScale = 2.0f * 0.7978845608028654f;
      const F32x16 square = x * x;
      inner = x * fma(square, splat(kScale * 0.044715f), splat(kScale));
      inner_slope = fma(square, splat(3.0f * kScale * 0.044715f), splat(kScale));
    }
    const F32x16 s = sigmoid(inner);
    const F32x16 value = x * s;
    return {value, fma(value * (splat(1.0f) - s), inner_slope, s)};
  }
}

template <Activation kActivation, class T>
void forward(const T* a, const T* b, const RowDropout& dropout, int64_t rows, int64_t width, T* hidden) {
  ThreadScratch<float> buffer(width + 64);
#pragma omp parallel if (rows * width > kMinParallel)
  {
    DropoutRow noise(dropout, width, buffer.data());
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      const float* factors = noise.factors(row);
      for (int64_t i = row * width, channel = 0; channel < width; i += kLanes, channel += kLanes) {
        F32x16 value = activate<kActivation>(load(a + i)).value;
        if (b != nullptr) value = value * load(b + i);
        if (factors != nullptr) value = value * load(factors + channel);
        store(hidden + i, value);
      }
    }
  }
}

template <Activation kActivation, class T>
void backward(const T* a, const T* b, const RowDropout& dropout, const T* grad_hidden, int64_t rows, int64_t width,
              T* grad_a, T* grad_b, T* hidden) {
  ThreadScratch<float> buffer(width + 64);
#pragma omp parallel if (rows * width > kMinParallel)
  {
    DropoutRow noise(dropout, width, buffer.data());
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      const float* factors = noise.factors(row);
      for (int64_t i = row * width, channel = 0; channel < width; i += kLanes, channel += kLanes) {
        const auto [value, slope] = activate<kActivation>(load(a + i));
        F32x16 grad = load(grad_hidden + i);
        const F32x16 factor = factors != nullptr ? load(factors + channel) : splat(1.0f);
        if (factors != nullptr) grad = grad * factor;
        if (b != nullptr) {
          const F32x16 gate = load(b + i);
          if (hidden != nullptr) store(hidden + i, value * gate * factor);
          store(grad_b + i, grad * value);
          grad = grad * gate;
        } else if (hidden != nullptr) {
          store(hidden + i, value * factor);
        }
        store(grad_a + i, grad * slope);
      }
    }
  }
}

}  // namespace

template <class T>
void hidden_layer(Activation activation, const T* a, const T* b, const RowDropout& dropout, int64_t rows, int64_t width,
                  T* hidden) {
  switch (activation) {
    case Activation::kRelu:
      return forward<Activation::kRelu>(a, b, dropout, rows, width, hidden);
    case Activation::kGeluNew:
      return forward<Activation::kGeluNew>(a, b, dropout, rows, width, hidden);
    case Activation::kSilu:
      return forward<Activation::kSilu>(a, b, dropout, rows, width, hidden);
  }
}

template <class T>
void hidden_layer_backward(Activation activation, const T* a, const T* b, const RowDropout& dropout,
                           const T* grad_hidden, int64_t rows, int64_t width, T* grad_a, T* grad_b, T* hidden) {
  switch (activation) {
    case Activation::kRelu:
      return backward<Activation::kRelu>(a, b, dropout, grad_hidden, rows, width, grad_a, grad_b, hidden);
    case Activation::kGeluNew:
      return backward<Activation::kGeluNew>(a, b, dropout, grad_hidden, rows, width, grad_a, grad_b, hidden);
    case Activation::kSilu:
      return backward<Activation::kSilu>(a, b, dropout, grad_hidden, rows, width, grad_a, grad_b, hidden);
  }
}

template void hidden_layer(Activation, const float*, const float*, const RowDropout&, int64_t, int64_t, float*);
template void hidden_layer(Activation, const BFloat16*, const BFloat16*, const RowDropout&, int64_t, int64_t,
                           BFloat16*);
template void hidden_layer_backward(Activation, const float*, const float*, const RowDropout&, const float*, int64_t,
                                    int64_t, float*, float*, float*);
template void hidden_layer_backward(Activation, const BFloat16*, const BFloat16*, const RowDropout&, const BFloat16*,
                                    int64_t, int64_t, BFloat16*, BFloat16*, BFloat16*);

}  // namespace switchyard::kernels
