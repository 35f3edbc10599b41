#include "kernels/stream.h"

#include <algorithm>

#include "kernels/lanes.h"
#include "kernels/scratch.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kMinParallel = 32768;
constexpr int64_t kBlock = 4096;  // elements a thread takes at a time

}  // namespace

template <class T>
void add_to_stream(const float* x, const T* delta, float* y, int64_t size) {
#pragma omp parallel for schedule(static) if (size > kMinParallel)
  for (int64_t start = 0; start < size; start += kBlock) {
    const int64_t end = std::min(size, start + kBlock);
    int64_t i = start;
    for (; i + kLanes <= end; i += kLanes) store(y + i, load(x + i) + load(delta + i));
    for (; i < end; ++i) y[i] = x[i] + to_float(delta[i]);
  }
}

template <class T>
void drop_channels(const T* x, const RowDropout& dropout, T* y, int64_t rows, int64_t width) {
  ThreadScratch<float> buffer(width + 64);
#pragma omp parallel if (rows * width > kMinParallel)
  {
    DropoutRow noise(dropout, width, buffer.data());
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      const float* factors = noise.factors(row);
      for (int64_t channel = 0, i = row * width; channel < width; channel += kLanes, i += kLanes)
        store(y + i, load(x + i) * load(factors + channel));
    }
  }
}

void scatter_add_rows(const float* grad, const int64_t* ids, float* table, int64_t rows, int64_t width) {
  // Threads share out the columns, so that each sum is made by one of them, in order.
  constexpr int64_t kColumns = 64;
#pragma omp parallel for schedule(static) if (rows * width > kMinParallel)
  for (int64_t first = 0; first < width; first += kColumns) {
    const int64_t end = std::min(width, first + kColumns);
    for (int64_t row = 0; row < rows; ++row) {
      const float* from = grad + row * width;
      float* to = table + ids[row] * width;
      for (int64_t i = first; i < end; ++i) to[i] += from[i];
    }
  }
}

template void add_to_stream(const float*, const float*, float*, int64_t);
template void add_to_stream(const float*, const BFloat16*, float*, int64_t);
template void drop_channels(const float*, const RowDropout&, float*, int64_t, int64_t);
template void drop_channels(const BFloat16*, const RowDropout&, BFloat16*, int64_t, int64_t);

}  // namespace switchyard::kernels
