// kernels/lanes.h in AVX2 and FMA: two vectors of eight.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/bfloat16.h"

namespace switchyard::kernels {

struct F32x16 {
  __m256 low, high;
};

inline F32x16 splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F32x16 load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
inline __m256 load_eight(const BFloat16* from) {
  const auto bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}
inline F32x16 load(const BFloat16* from) { return {load_eight(from), load_eight(from + 8)}; }
inline void store(float* to, F32x16 x) {
  _mm256_storeu_ps(to, x.low);
  _mm256_storeu_ps(to + 8, x.high);
}

// Rounded to bf16 in the low halves of eight words: to nearest even; NaN stays NaN.
inline __m256i round_to_bfloat16(__m256 x) {
  const auto bits = _mm256_castps_si256(x), high = _mm256_srli_epi32(bits, 16);
  const auto is_odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const auto rounded =
      _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(is_odd, _mm256_set1_epi32(0x7FFF))), 16);
  const auto quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}
inline __m256i narrow(F32x16 x) {
  const auto pieces = _mm256_packus_epi32(round_to_bfloat16(x.low), round_to_bfloat16(x.high));
  return _mm256_permute4x64_epi64(pieces, 0xD8);  // packed within 128-bit pieces
}
inline void store(BFloat16* to, F32x16 x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow(x)); }

inline F32x16 operator+(F32x16 a, F32x16 b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
inline F32x16 operator-(F32x16 a, F32x16 b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
inline F32x16 operator*(F32x16 a, F32x16 b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
inline F32x16 operator/(F32x16 a, F32x16 b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
inline F32x16 where_at_least(F32x16 test, F32x16 bound, F32x16 x) {
  return {_mm256_and_ps(_mm256_cmp_ps(test.low, bound.low, _CMP_GE_OQ), x.low),
          _mm256_and_ps(_mm256_cmp_ps(test.high, bound.high, _CMP_GE_OQ), x.high)};
}
inline F32x16 where_positive(F32x16 test, F32x16 x) {
  return {_mm256_and_ps(_mm256_cmp_ps(test.low, _mm256_setzero_ps(), _CMP_GT_OQ), x.low),
          _mm256_and_ps(_mm256_cmp_ps(test.high, _mm256_setzero_ps(), _CMP_GT_OQ), x.high)};
}
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline F32x16 max(F32x16 a, F32x16 b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
inline F32x16 round(F32x16 x) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.low, kMode), _mm256_round_ps(x.high, kMode)};
}

// In two steps, since 2^exponent alone may be no normal number. -252 is far enough to make 0 of any x below 2^100.
inline __m256 scale_by_power(__m256 x, __m256 exponent) {
  const auto bounded = _mm256_min_ps(_mm256_max_ps(exponent, _mm256_set1_ps(-252.0f)), _mm256_set1_ps(254.0f));
  const auto whole = _mm256_cvtps_epi32(bounded), half = _mm256_srai_epi32(whole, 1);
  const auto power = [](__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
  };
  return _mm256_mul_ps(_mm256_mul_ps(x, power(half)), power(_mm256_sub_epi32(whole, half)));
}
inline F32x16 scale_by_power(F32x16 x, F32x16 exponent) {
  return {scale_by_power(x.low, exponent.low), scale_by_power(x.high, exponent.high)};
}

// Halves meet halves down to one lane.
template <class Join>
inline float reduce(F32x16 x, Join join) {
  const __m256 eight = join(x.low, x.high);
  const __m256 four = join(eight, _mm256_permute2f128_ps(eight, eight, 1));
  const __m256 two = join(four, _mm256_permute_ps(four, 0x4E));
  return _mm256_cvtss_f32(join(two, _mm256_permute_ps(two, 0xB1)));
}
inline float reduce_max(F32x16 x) {
  return reduce(x, [](__m256 a, __m256 b) { return _mm256_max_ps(a, b); });
}
inline float reduce_add(F32x16 x) {
  return reduce(x, [](__m256 a, __m256 b) { return _mm256_add_ps(a, b); });
}

inline void store_wide(BFloat16* to, F32x16 a, F32x16 b) {
  store(to, a);
  store(to + 16, b);
}

inline F32x16 shift_up(F32x16 x, F32x16 from) {
  const auto up = _mm256_set_epi32(6, 5, 4, 3, 2, 1, 0, 7);
  const __m256 low = _mm256_permutevar8x32_ps(x.low, up), high = _mm256_permutevar8x32_ps(x.high, up);
  return {_mm256_blend_ps(low, _mm256_permutevar8x32_ps(from.high, up), 1), _mm256_blend_ps(high, low, 1)};
}

inline void store_pair(BFloat16* to0, BFloat16* to1, F32x16 a, F32x16 b) {
  store(to0, a);
  store(to1, b);
}
inline void store_pair_interleaved(BFloat16* to0, BFloat16* to1, BFloat16* interleaved, F32x16 a, F32x16 b) {
  const auto even = narrow(a), odd = narrow(b);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to0), even);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to1), odd);
  const auto low = _mm256_unpacklo_epi16(even, odd), high = _mm256_unpackhi_epi16(even, odd);
  auto* to = reinterpret_cast<__m256i*>(interleaved);
  _mm256_storeu_si256(to, _mm256_permute2x128_si256(low, high, 0x20));
  _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(low, high, 0x31));
}

}  // namespace switchyard::kernels
