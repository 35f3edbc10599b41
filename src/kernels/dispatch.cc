#include "kernels/dispatch.h"

#include <cstring>

#include "kernels/lanes.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kMinParallel = 32768;

}  // namespace

template <class T>
void dispatch_rows(const T* from, const int64_t* token, T* to, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static) if (rows * width > kMinParallel)
  for (int64_t row = 0; row < rows; ++row)
    std::memcpy(to + row * width, from + token[row] * width, sizeof(T) * static_cast<size_t>(width));
}

template <class T>
void combine_rows(const T* from, const float* gate, const int64_t* token, T* to, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static) if (rows * width > kMinParallel)
  for (int64_t row = 0; row < rows; ++row) {
    const T* source = from + row * width;
    T* target = to + token[row] * width;
    if (gate == nullptr) {
      std::memcpy(target, source, sizeof(T) * static_cast<size_t>(width));
      continue;
    }
    const F32x16 factor = splat(gate[row]);
    for (int64_t i = 0; i < width; i += kLanes) store(target + i, load(source + i) * factor);
  }
}

template <class T>
void combine_rows_backward(const T* grad_to, const T* from, const float* gate, const int64_t* token, T* grad_from,
                           float* grad_gate, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static) if (rows * width > kMinParallel)
  for (int64_t row = 0; row < rows; ++row) {
    const T* grad = grad_to + token[row] * width;
    const T* source = from + row * width;
    T* target = grad_from + row * width;
    const F32x16 factor = splat(gate[row]);
    F32x16 dot = splat(0.0f);
    for (int64_t i = 0; i < width; i += kLanes) {
      const F32x16 value = load(grad + i);
      dot = fma(value, load(source + i), dot);
      store(target + i, value * factor);
    }
    grad_gate[row] = reduce_add(dot);
  }
}

template void dispatch_rows(const float*, const int64_t*, float*, int64_t, int64_t);
template void dispatch_rows(const BFloat16*, const int64_t*, BFloat16*, int64_t, int64_t);
template void combine_rows(const float*, const float*, const int64_t*, float*, int64_t, int64_t);
template void combine_rows(const BFloat16*, const float*, const int64_t*, BFloat16*, int64_t, int64_t);
template void combine_rows_backward(const float*, const float*, const float*, const int64_t*, float*, float*, int64_t,
                                    int64_t);
template void combine_rows_backward(const BFloat16*, const BFloat16*, const float*, const int64_t*, BFloat16*, float*,
                                    int64_t, int64_t);

}  // namespace switchyard::kernels
