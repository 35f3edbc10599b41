// Sixteen f32 numbers at a time: AVX-512 where the compiler may use it, plain loops elsewhere. Kernels are written once
// over F32x16, on buffers padded to whole vectors, so there are no masked forms.
//
// Not a general vector library: what attention and the row kernels need, and nothing with lane counts other than 16.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && \
    defined(__AVX512BF16__)
#define SWITCHYARD_LANES_AVX512 1
#include <immintrin.h>
#endif

#include "kernels/bfloat16.h"

namespace switchyard::kernels {

inline constexpr int64_t kLanes = 16;

#ifdef SWITCHYARD_LANES_AVX512

struct F32x16 {
  __m512 value;
};

inline F32x16 splat(float x) { return {_mm512_set1_ps(x)}; }
inline F32x16 load(const float* from) { return {_mm512_loadu_ps(from)}; }
inline F32x16 load(const BFloat16* from) {
  const auto bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16))};
}
inline void store(float* to, F32x16 x) { _mm512_storeu_ps(to, x.value); }
inline void store(BFloat16* to, F32x16 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x.value)));
}

inline F32x16 operator+(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.value, b.value)}; }
inline F32x16 operator-(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.value, b.value)}; }
inline F32x16 operator*(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.value, b.value)}; }
inline F32x16 operator/(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.value, b.value)}; }
// x where test > 0, else 0.
inline F32x16 where_positive(F32x16 test, F32x16 x) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(test.value, _mm512_setzero_ps(), _CMP_GT_OQ), x.value)};
}
// x where test >= bound, else 0.
inline F32x16 where_at_least(F32x16 test, F32x16 bound, F32x16 x) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(test.value, bound.value, _CMP_GE_OQ), x.value)};
}
// a * b + c
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.value, b.value, c.value)}; }
// The larger; b if either is NaN.
inline F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.value, b.value)}; }
inline F32x16 round(F32x16 x) { return {_mm512_roundscale_ps(x.value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// x * 2^exponent, exponent integral; underflows to 0.
inline F32x16 scale_by_power(F32x16 x, F32x16 exponent) { return {_mm512_scalef_ps(x.value, exponent.value)}; }
inline float reduce_max(F32x16 x) { return _mm512_reduce_max_ps(x.value); }
inline float reduce_add(F32x16 x) { return _mm512_reduce_add_ps(x.value); }

// to[0, 16) = a, to[16, 32) = b.
inline void store_wide(BFloat16* to, F32x16 a, F32x16 b) {
  _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b.value, a.value)));
}

// Every lane moves up by one; lane 0 becomes `from`'s lane 15.
inline F32x16 shift_up(F32x16 x, F32x16 from) {
  return {_mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(x.value), _mm512_castps_si512(from.value), 15))};
}

// to0 = a, to1 = b, interleaved = [a0, b0, a1, b1, ...], all rounded to bf16.
inline void store_pair(BFloat16* to0, BFloat16* to1, F32x16 a, F32x16 b) {
  const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b.value, a.value));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to0), _mm512_castsi512_si256(both));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to1), _mm512_extracti64x4_epi64(both, 1));
}
inline void store_pair_interleaved(BFloat16* to0, BFloat16* to1, BFloat16* interleaved, F32x16 a, F32x16 b) {
  const auto order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5,
                                      20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b.value, a.value));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to0), _mm512_castsi512_si256(both));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to1), _mm512_extracti64x4_epi64(both, 1));
  _mm512_storeu_si512(interleaved, _mm512_permutexvar_epi16(order, both));
}

#else

struct F32x16 {
  float value[kLanes];
};

template <class Function>
inline F32x16 each_lane(Function function) {
  F32x16 result;
  for (int64_t lane = 0; lane < kLanes; ++lane) result.value[lane] = function(lane);
  return result;
}
inline F32x16 splat(float x) {
  return each_lane([&](int64_t) { return x; });
}
template <class T>
inline F32x16 load(const T* from) {
  return each_lane([&](int64_t lane) { return to_float(from[lane]); });
}
inline void store(float* to, F32x16 x) { std::copy_n(x.value, kLanes, to); }
inline void store(BFloat16* to, F32x16 x) {
  for (int64_t lane = 0; lane < kLanes; ++lane) to[lane] = to_bfloat16(x.value[lane]);
}

inline F32x16 operator+(F32x16 a, F32x16 b) {
  return each_lane([&](int64_t lane) { return a.value[lane] + b.value[lane]; });
}
inline F32x16 operator-(F32x16 a, F32x16 b) {
  return each_lane([&](int64_t lane) { return a.value[lane] - b.value[lane]; });
}
inline F32x16 operator*(F32x16 a, F32x16 b) {
  return each_lane([&](int64_t lane) { return a.value[lane] * b.value[lane]; });
}
inline F32x16 operator/(F32x16 a, F32x16 b) {
  return each_lane([&](int64_t lane) { return a.value[lane] / b.value[lane]; });
}
inline F32x16 where_positive(F32x16 test, F32x16 x) {
  return each_lane([&](int64_t lane) { return test.value[lane] > 0.0f ? x.value[lane] : 0.0f; });
}
inline F32x16 where_at_least(F32x16 test, F32x16 bound, F32x16 x) {
  return each_lane([&](int64_t lane) { return test.value[lane] >= bound.value[lane] ? x.value[lane] : 0.0f; });
}
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return each_lane([&](int64_t lane) { return a.value[lane] * b.value[lane] + c.value[lane]; });
}
inline F32x16 max(F32x16 a, F32x16 b) {
  return each_lane([&](int64_t lane) { return a.value[lane] > b.value[lane] ? a.value[lane] : b.value[lane]; });
}
inline F32x16 round(F32x16 x) {
  return each_lane([&](int64_t lane) { return std::nearbyint(x.value[lane]); });
}
inline F32x16 scale_by_power(F32x16 x, F32x16 exponent) {
  return each_lane([&](int64_t lane) {
    return std::ldexp(x.value[lane], static_cast<int>(std::clamp(exponent.value[lane], -1e4f, 1e4f)));
  });
}
inline float reduce_max(F32x16 x) { return *std::max_element(x.value, x.value + kLanes); }
inline float reduce_add(F32x16 x) {
  for (int64_t half = kLanes / 2; half > 0; half /= 2)
    for (int64_t lane = 0; lane < half; ++lane) x.value[lane] += x.value[lane + half];
  return x.value[0];
}
inline void store_wide(BFloat16* to, F32x16 a, F32x16 b) {
  store(to, a);
  store(to + kLanes, b);
}
inline F32x16 shift_up(F32x16 x, F32x16 from) {
  return each_lane([&](int64_t lane) { return lane == 0 ? from.value[kLanes - 1] : x.value[lane - 1]; });
}
inline void store_pair(BFloat16* to0, BFloat16* to1, F32x16 a, F32x16 b) {
  store(to0, a);
  store(to1, b);
}
inline void store_pair_interleaved(BFloat16* to0, BFloat16* to1, BFloat16* interleaved, F32x16 a, F32x16 b) {
  store_pair(to0, to1, a, b);
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    interleaved[2 * lane] = to0[lane];
    interleaved[2 * lane + 1] = to1[lane];
  }
}

#endif

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
