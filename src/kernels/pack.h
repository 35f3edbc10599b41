// Rearrangements that brgemm's operands need. A "word" is 32 bits: one f32 or two neighbouring bf16. Buffers are
// padded: row counts and word counts are multiples of 16.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/bfloat16.h"
#include "kernels/lanes.h"

namespace switchyard::kernels {

inline constexpr int64_t round_up(int64_t size, int64_t multiple) {
  return (size + multiple - 1) / multiple * multiple;
}

// Words of one element type: 1 for f32, 2 elements a word for bf16.
template <class T>
inline constexpr int64_t kPerWord = 4 / sizeof(T);

#ifdef SWITCHYARD_LANES_AVX2
// to[column][row] = from[row][column] for a 8 x 8 block of words.
inline void transpose_8x8(const char* from, int64_t from_stride, char* to, int64_t to_stride) {
  __m256 a[8], b[8];
  for (int64_t i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps(reinterpret_cast<const float*>(from + 4 * i * from_stride));
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xEE);
    a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xEE);
  }
  for (int64_t j = 0; j < 4; ++j) {
    // a[j] holds columns j and j + 4 of rows 0-3 in 128-bit pieces, a[j + 4] those of rows 4-7.
    auto* column = reinterpret_cast<float*>(to + 4 * j * to_stride);
    _mm256_storeu_ps(column, _mm256_permute2f128_ps(a[j], a[j + 4], 0x20));
    _mm256_storeu_ps(column + 4 * to_stride, _mm256_permute2f128_ps(a[j], a[j + 4], 0x31));
  }
}
#endif

// to[column][row] = from[row][column] for a 16 x 16 block of words.
inline void transpose_16x16(const void* from, int64_t from_stride, void* to, int64_t to_stride) {
  const auto* source = static_cast<const char*>(from);
  auto* target = static_cast<char*>(to);
#ifdef SWITCHYARD_LANES_AVX512
  __m512i a[16], b[16];
  for (int64_t i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(source + 4 * i * from_stride);
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 4; ++j) {
      b[i + j] = _mm512_shuffle_i32x4(a[i + j], a[i + j + 4], 0x88);
      b[i + j + 4] = _mm512_shuffle_i32x4(a[i + j], a[i + j + 4], 0xDD);
    }
  for (int64_t j = 0; j < 8; ++j) {
    // b[j] holds columns j and j + 8 of rows 0-7 in 128-bit pieces, b[j + 8] those of rows 8-15.
    _mm512_storeu_si512(target + 4 * j * to_stride, _mm512_shuffle_i32x4(b[j], b[j + 8], 0x88));
    _mm512_storeu_si512(target + 4 * (j + 8) * to_stride, _mm512_shuffle_i32x4(b[j], b[j + 8], 0xDD));
  }
#elif defined(SWITCHYARD_LANES_AVX2)
  for (int64_t row = 0; row < 16; row += 8)
    for (int64_t column = 0; column < 16; column += 8)
      transpose_8x8(source + 4 * (row * from_stride + column), from_stride, target + 4 * (column * to_stride + row),
                    to_stride);
#else
  for (int64_t row = 0; row < 16; ++row)
    for (int64_t column = 0; column < 16; ++column)
      std::memcpy(target + 4 * (column * to_stride + row), source + 4 * (row * from_stride + column), 4);
#endif
}

// from [rows][words] to [words][rows].
inline void transpose_words(const void* from, int64_t from_stride, int64_t rows, int64_t words, void* to,
                            int64_t to_stride) {
  for (int64_t row = 0; row < rows; row += 16)
    for (int64_t word = 0; word < words; word += 16)
      transpose_16x16(static_cast<const char*>(from) + 4 * (row * from_stride + word), from_stride,
                      static_cast<char*>(to) + 4 * (word * to_stride + row), to_stride);
}

// to[2 i] = row0[i], to[2 i + 1] = row1[i]; `size` a multiple of 32.
inline void interleave(const BFloat16* row0, const BFloat16* row1, BFloat16* to, int64_t size) {
#ifdef SWITCHYARD_LANES_AVX512
  const auto low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                    36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const auto high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  for (int64_t i = 0; i < size; i += 32) {
    const auto a = _mm512_loadu_si512(row0 + i);
    const auto b = _mm512_loadu_si512(row1 + i);
    _mm512_storeu_si512(to + 2 * i, _mm512_permutex2var_epi16(a, low, b));
    _mm512_storeu_si512(to + 2 * i + 32, _mm512_permutex2var_epi16(a, high, b));
  }
#else
  for (int64_t i = 0; i < size; ++i) {
    to[2 * i] = row0[i];
    to[2 * i + 1] = row1[i];
  }
#endif
}

// The inverse: even[i] = from[2 i], odd[i] = from[2 i + 1]; `size` a multiple of 16.
inline void deinterleave(const BFloat16* from, BFloat16* even, BFloat16* odd, int64_t size) {
#ifdef SWITCHYARD_LANES_AVX512
  for (int64_t i = 0; i < size; i += 16) {
    const auto pairs = _mm512_loadu_si512(from + 2 * i);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(even + i), _mm512_cvtepi32_epi16(pairs));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(odd + i), _mm512_cvtepi32_epi16(_mm512_srli_epi32(pairs, 16)));
  }
#else
  for (int64_t i = 0; i < size; ++i) {
    even[i] = from[2 * i];
    odd[i] = from[2 * i + 1];
  }
#endif
}

// brgemm's second operand from its rows: pairs of bf16 rows interleaved, f32 rows as they are. rows even.
inline void pack_rows(const BFloat16* from, int64_t from_stride, int64_t rows, int64_t columns, BFloat16* to) {
  for (int64_t row = 0; row < rows; row += 2)
    interleave(from + row * from_stride, from + (row + 1) * from_stride, to + row * columns, columns);
}
inline void pack_rows(const float* from, int64_t from_stride, int64_t rows, int64_t columns, float* to) {
  for (int64_t row = 0; row < rows; ++row)
    std::memcpy(to + row * columns, from + row * from_stride, sizeof(float) * columns);
}

// brgemm's second operand from the rows of its transpose: from [rows][columns] to the packed [columns][rows].
template <class T>
void pack_transposed(const T* from, int64_t from_stride, int64_t rows, int64_t columns, T* to) {
  transpose_words(from, from_stride / kPerWord<T>, rows, columns / kPerWord<T>, to, rows);
}

}  // namespace switchyard::kernels
