// Sixteen f32 numbers at a time, in the instructions that the compiler may use: AVX-512, AVX2, or plain loops. Kernels
// are written once over F32x16, on buffers padded to whole vectors, so there are no masked forms. Sums of lanes are
// made in one order everywhere.
//
// Not a general vector library: what attention and the row kernels need, and nothing with lane counts other than 16.
#pragma once

#include <cstdint>

namespace switchyard::kernels {
inline constexpr int64_t kLanes = 16;
}

// The functions of each form are those of lanes_avx512.h.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && \
    defined(__AVX512BF16__)
#define SWITCHYARD_LANES_AVX512 1
#include "kernels/lanes_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__)
#define SWITCHYARD_LANES_AVX2 1
#include "kernels/lanes_avx2.h"
#else
#include "kernels/lanes_plain.h"
#endif

namespace switchyard::kernels {

inline void store_wide(float* to, F32x16 a, F32x16 b) {
  store(to, a);
  store(to + kLanes, b);
}
inline void store_pair(float* to0, float* to1, F32x16 a, F32x16 b) {
  store(to0, a);
  store(to1, b);
}

// 2^x with relative error below 2e-7 (degree-5 minimax polynomial on [-1/2, 1/2], exact at 0) for every finite x below
// 128, underflowing to 0; NaN at -inf, so that no instruction is spent on it: hide a score by -1e30 instead.
inline F32x16 exp2_finite(F32x16 x) {
  const F32x16 whole = round(x);
  const F32x16 rest = x - whole;
  F32x16 power = splat(0x1.5bba12p-10f);
  power = fma(power, rest, splat(0x1.3cea88p-7f));
  power = fma(power, rest, splat(0x1.c6b752p-5f));
  power = fma(power, rest, splat(0x1.ebf9bcp-3f));
  power = fma(power, rest, splat(0x1.62e42ap-1f));
  power = fma(power, rest, splat(1.0f));
  return scale_by_power(power, whole);
}

// The same for any x; NaN stays NaN.
inline F32x16 exp2(F32x16 x) { return exp2_finite(max(splat(-160.0f), x)); }

}  // namespace switchyard::kernels
