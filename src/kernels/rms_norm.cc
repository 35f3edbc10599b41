#include "kernels/rms_norm.h"

#include <algorithm>
#include <cmath>

#include "kernels/lanes.h"
#include "kernels/scratch.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kMaxParts = 64;  // sums of grad_scale that are made apart
constexpr int64_t kMinParallel = 16384;

float inverse_rms(const float* x, int64_t d_model, float epsilon) {
  F32x16 sum[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
  int64_t i = 0;
  for (; i + 4 * kLanes <= d_model; i += 4 * kLanes)
    for (int64_t part = 0; part < 4; ++part) {
      const F32x16 value = load(x + i + part * kLanes);
      sum[part] = fma(value, value, sum[part]);
    }
  for (; i < d_model; i += kLanes) sum[0] = fma(load(x + i), load(x + i), sum[0]);
  const float total = reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3]));
  return 1.0f / std::sqrt(total / static_cast<float>(d_model) + epsilon);
}

}  // namespace

template <class Out>
void rms_norm(const float* x, const float* scale, Out* y, int64_t rows, int64_t d_model, float epsilon) {
#pragma omp parallel for schedule(static) if (rows * d_model > kMinParallel)
  for (int64_t row = 0; row < rows; ++row) {
    const float* from = x + row * d_model;
    Out* to = y + row * d_model;
    const F32x16 factor = splat(inverse_rms(from, d_model, epsilon));
    for (int64_t i = 0; i < d_model; i += kLanes) store(to + i, load(from + i) * factor * load(scale + i));
  }
}

template <class Out>
void rms_norm_backward(const float* x, const float* scale, const Out* grad_y, float* grad_x, float* grad_scale,
                       int64_t rows, int64_t d_model, float epsilon) {
  const int64_t parts = std::clamp<int64_t>(rows / 32, 1, kMaxParts);
  Scratch<float> partial(parts * d_model);
#pragma omp parallel if (rows * d_model > kMinParallel)
  {
#pragma omp for schedule(static)
    for (int64_t part = 0; part < parts; ++part) {
      float* sums = partial.data() + part * d_model;
      std::fill_n(sums, d_model, 0.0f);
      for (int64_t row = rows * part / parts; row < rows * (part + 1) / parts; ++row) {
        const float* from = x + row * d_model;
        const Out* grad = grad_y + row * d_model;
        const float inverse = inverse_rms(from, d_model, epsilon);
        const F32x16 factor = splat(inverse);
        F32x16 dot = splat(0.0f);
        for (int64_t i = 0; i < d_model; i += kLanes) {
          const F32x16 weighted = load(grad + i) * load(from + i);
          dot = fma(weighted, load(scale + i), dot);
          store(sums + i, fma(weighted, factor, load(sums + i)));
        }
        // dx = r (g scale) - x r^3 mean(g scale x)
        const F32x16 back = splat(-inverse * inverse * inverse * reduce_add(dot) / static_cast<float>(d_model));
        for (int64_t i = 0; i < d_model; i += kLanes)
          store(grad_x + row * d_model + i, fma(load(from + i), back, load(grad + i) * load(scale + i) * factor));
      }
    }
#pragma omp for schedule(static)
    for (int64_t i = 0; i < d_model; i += kLanes) {
      F32x16 sum = load(partial.data() + i);
      for (int64_t part = 1; part < parts; ++part) sum = sum + load(partial.data() + part * d_model + i);
      store(grad_scale + i, sum);
    }
  }
}

template void rms_norm(const float*, const float*, float*, int64_t, int64_t, float);
template void rms_norm(const float*, const float*, BFloat16*, int64_t, int64_t, float);
template void rms_norm_backward(const float*, const float*, const float*, float*, float*, int64_t, int64_t, float);
template void rms_norm_backward(const float*, const float*, const BFloat16*, float*, float*, int64_t, int64_t, float);

}  // namespace switchyard::kernels
