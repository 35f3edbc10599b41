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
void combine_rows(const T* from, const float* gate, const RowsOfTokens& rows, T* to, int64_t tokens, int64_t width) {
#pragma omp parallel for schedule(static) if (tokens * width > kMinParallel)
  for (int64_t token = 0; token < tokens; ++token) {
    T* target = to + token * width;
    const int64_t* row = rows.row + rows.first[token];
    const int64_t count = rows.first[token + 1] - rows.first[token];
    if (count == 0) {
      std::memset(target, 0, sizeof(T) * static_cast<size_t>(width));
      continue;
    }
    const auto factor = [&](int64_t n) { return splat(gate == nullptr ? 1.0f : gate[row[n]]); };
    for (int64_t i = 0; i < width; i += kLanes) {
      F32x16 sum = load(from + row[0] * width + i) * factor(0);
      for (int64_t n = 1; n < count; ++n) sum = fma(load(from + row[n] * width + i), factor(n), sum);
      store(target + i, sum);
    }
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
template void combine_rows(const float*, const float*, const RowsOfTokens&, float*, int64_t, int64_t);
template void combine_rows(const BFloat16*, const float*, const RowsOfTokens&, BFloat16*, int64_t, int64_t);
template void combine_rows_backward(const float*, const float*, const float*, const int64_t*, float*, float*, int64_t,
                                    int64_t);
template void combine_rows_backward(const BFloat16*, const BFloat16*, const float*, const int64_t*, BFloat16*, float*,
                                    int64_t, int64_t);

}  // namespace switchyard::kernels
