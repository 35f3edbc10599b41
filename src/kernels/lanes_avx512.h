// kernels/lanes.h in AVX-512 with BF16.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/bfloat16.h"

namespace switchyard::kernels {

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

}  // namespace switchyard::kernels
