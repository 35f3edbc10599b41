#include "kernels/quantized.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/lanes.h"
#include "kernels/scratch.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kGroup = kQuantizedGroup;
constexpr int64_t kBlock = 64;             // columns of a thread's piece of work
constexpr int64_t kNearWords = 8192;       // integers of rows that stay in the first-level cache
constexpr int64_t kNearColumns = 8;        // rows of the matrix beside them
constexpr int64_t kExact = 8192;           // products of 127 and 32767 in 16 lanes that fit 32 bits
constexpr int64_t kMinParallel = 1 << 16;  // multiplications below which one thread is faster

float load_scale(const uint8_t* from) {
  float scale;
  std::memcpy(&scale, from, sizeof(scale));
  return scale;
}

float load_narrow_scale(const uint8_t* from) {
  BFloat16 scale{};
  std::memcpy(&scale, from, sizeof(scale));
  return to_float(scale);
}

// The integer nearest to value / scale within [low, high]; 0 where there is none.
int to_integer(float value, float scale, int low, int high) {
  const float quotient = value / scale;
  return std::isfinite(quotient)
             ? std::clamp(static_cast<int>(std::lrint(std::clamp(quotient, -1e6f, 1e6f))), low, high)
             : 0;
}

// The element of largest magnitude, NaN if there is one.
float extreme(const float* values, int64_t count) {
  float found = 0.0f;
  for (int64_t i = 0; i < count; ++i) {
    if (std::isnan(values[i])) return values[i];
    if (std::abs(values[i]) > std::abs(found)) found = values[i];
  }
  return found;
}

void quantize_int8(const float* row, int64_t inner, uint8_t* to) {
  const float scale = std::abs(extreme(row, inner)) / 127.0f;
  for (int64_t i = 0; i < inner; ++i) to[i] = static_cast<uint8_t>(to_integer(row[i], scale, -127, 127));
  std::memcpy(to + inner, &scale, sizeof(scale));
}

void quantize_int4(const float* row, int64_t inner, uint8_t* to) {
  uint8_t* scales = to + inner / 2;
  for (int64_t first = 0; first < inner; first += kGroup, row += kGroup, to += kGroup / 2, scales += 2) {
    const BFloat16 narrow = to_bfloat16(extreme(row, kGroup) / -8.0f);
    const float scale = to_float(narrow);
    const auto digit = [&](int64_t i) { return static_cast<unsigned>(to_integer(row[i], scale, -8, 7) + 8); };
    for (int64_t j = 0; j < kGroup / 2; ++j) to[j] = static_cast<uint8_t>(digit(j) | digit(j + kGroup / 2) << 4U);
    std::memcpy(scales, &narrow, sizeof(narrow));
  }
}

void dequantize_row(QuantizedForm form, const uint8_t* row, int64_t inner, float* to) {
  if (form == QuantizedForm::kInt8) {
    const float scale = load_scale(row + inner);
    for (int64_t i = 0; i < inner; ++i) to[i] = scale * static_cast<float>(static_cast<int8_t>(row[i]));
    return;
  }
  const uint8_t* scales = row + inner / 2;
  for (int64_t first = 0; first < inner; first += kGroup, row += kGroup / 2, scales += 2) {
    const float scale = load_narrow_scale(scales);
    for (int64_t j = 0; j < kGroup / 2; ++j) {
      to[first + j] = scale * static_cast<float>((row[j] & 0x0F) - 8);
      to[first + j + kGroup / 2] = scale * static_cast<float>((row[j] >> 4) - 8);
    }
  }
}

// Of bf16 numbers, by their bits: larger where one is infinite, and larger still where one is NaN.
float largest_magnitude(const BFloat16* row, int64_t count) {
  uint16_t bits = 0;
  for (int64_t i = 0; i < count; ++i) bits = std::max<uint16_t>(bits, row[i].bits & 0x7FFFU);
  return to_float(BFloat16{bits});
}

#ifdef SWITCHYARD_LANES_AVX512

inline __m512i dot_pairs(__m512i sum, __m512i a, __m512i b) {
#ifdef __AVX512VNNI__
  return _mm512_dpwssd_epi32(sum, a, b);
#else
  return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
#endif
}

inline __m512i load_words(const int16_t* from) { return _mm512_loadu_si512(from); }
inline __m256i load_bytes(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }

inline F32x16 widen(__m128i bytes) { return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))}; }

// 32 signed bytes, scaled, to bf16.
inline void store_scaled(__m256i bytes, F32x16 scale, BFloat16* to) {
  store_wide(to, scale * widen(_mm256_castsi256_si128(bytes)), scale * widen(_mm256_extracti128_si256(bytes, 1)));
}

// A row's values rounded to bf16.
void narrow_row(QuantizedForm form, const uint8_t* row, int64_t inner, BFloat16* to) {
  if (form == QuantizedForm::kInt8) {
    const F32x16 scale = splat(load_scale(row + inner));
    for (int64_t i = 0; i < inner; i += 32) store_scaled(load_bytes(row + i), scale, to + i);
    return;
  }
  const uint8_t* scales = row + inner / 2;
  const __m256i low_half = _mm256_set1_epi8(0x0F), eight = _mm256_set1_epi8(8);
  for (int64_t i = 0; i < inner; i += kGroup, scales += 2) {
    const F32x16 scale = splat(load_narrow_scale(scales));
    const __m256i bytes = load_bytes(row + i / 2);
    const auto digits = [&](__m256i half) { return _mm256_sub_epi8(_mm256_and_si256(half, low_half), eight); };
    store_scaled(digits(bytes), scale, to + i);
    store_scaled(digits(_mm256_srli_epi16(bytes, 4)), scale, to + i + kGroup / 2);
  }
}

// sums[row] = (integers of the row) . (a quantised row of the matrix, scaled).
template <int kRows>
void dot_int8(const int16_t* a, int64_t inner, const uint8_t* b, float* sums) {
  F32x16 total[kRows];
  for (int row = 0; row < kRows; ++row) total[row] = splat(0.0f);
  for (int64_t first = 0; first < inner; first += kExact) {
    const int64_t end = std::min(inner, first + kExact);
    __m512i sum[kRows];
    for (int row = 0; row < kRows; ++row) sum[row] = _mm512_setzero_si512();
    for (int64_t i = first; i < end; i += 32) {
      if (i % 64 == 0) _mm_prefetch(reinterpret_cast<const char*>(b) + i + kPrefetchBytes, _MM_HINT_T0);
      const __m512i values = _mm512_cvtepi8_epi16(load_bytes(b + i));
      for (int row = 0; row < kRows; ++row) sum[row] = dot_pairs(sum[row], values, load_words(a + row * inner + i));
    }
    for (int row = 0; row < kRows; ++row) total[row] = total[row] + F32x16{_mm512_cvtepi32_ps(sum[row])};
  }
  const float scale = load_scale(b + inner);
  for (int row = 0; row < kRows; ++row) sums[row] = scale * reduce_add(total[row]);
}

template <int kRows>
void dot_int4(const int16_t* a, int64_t inner, const uint8_t* b, float* sums) {
  const uint8_t* scales = b + inner / 2;
  const __m256i low_half = _mm256_set1_epi8(0x0F);
  const __m512i eight = _mm512_set1_epi16(8);
  F32x16 total[kRows];
  for (int row = 0; row < kRows; ++row) total[row] = splat(0.0f);
  for (int64_t i = 0; i < inner; i += kGroup, scales += 2) {
    if (i % (2 * kGroup) == 0) _mm_prefetch(reinterpret_cast<const char*>(b) + i / 2 + kPrefetchBytes, _MM_HINT_T0);
    const __m256i bytes = load_bytes(b + i / 2);
    const auto digits = [&](__m256i half) {
      return _mm512_sub_epi16(_mm512_cvtepu8_epi16(_mm256_and_si256(half, low_half)), eight);
    };
    const __m512i low = digits(bytes), high = digits(_mm256_srli_epi16(bytes, 4));
    const F32x16 scale = splat(load_narrow_scale(scales));
    for (int row = 0; row < kRows; ++row) {
      const int16_t* words = a + row * inner + i;
      const __m512i sum =
          dot_pairs(dot_pairs(_mm512_setzero_si512(), low, load_words(words)), high, load_words(words + kGroup / 2));
      total[row] = fma(scale, F32x16{_mm512_cvtepi32_ps(sum)}, total[row]);
    }
  }
  for (int row = 0; row < kRows; ++row) sums[row] = reduce_add(total[row]);
}

#else

void narrow_row(QuantizedForm form, const uint8_t* row, int64_t inner, BFloat16* to) {
  std::vector<float> wide(static_cast<size_t>(inner));
  dequantize_row(form, row, inner, wide.data());
  std::transform(wide.begin(), wide.end(), to, to_bfloat16);
}

template <int kRows>
void dot_int8(const int16_t* a, int64_t inner, const uint8_t* b, float* sums) {
  const float scale = load_scale(b + inner);
  for (int row = 0; row < kRows; ++row) {
    int64_t sum = 0;
    for (int64_t i = 0; i < inner; ++i) sum += int64_t{a[row * inner + i]} * static_cast<int8_t>(b[i]);
    sums[row] = scale * static_cast<float>(sum);
  }
}

template <int kRows>
void dot_int4(const int16_t* a, int64_t inner, const uint8_t* b, float* sums) {
  const uint8_t* scales = b + inner / 2;
  for (int row = 0; row < kRows; ++row) {
    float total = 0.0f;
    for (int64_t i = 0; i < inner; i += kGroup) {
      const int16_t* words = a + row * inner + i;
      int64_t sum = 0;
      for (int64_t j = 0; j < kGroup / 2; ++j) {
        const uint8_t byte = b[i / 2 + j];
        sum += int64_t{words[j]} * ((byte & 0x0F) - 8) + int64_t{words[j + kGroup / 2]} * ((byte >> 4) - 8);
      }
      total += load_narrow_scale(scales + i / kGroup * 2) * static_cast<float>(sum);
    }
    sums[row] = total;
  }
}

#endif

template <int kRows>
void dot(QuantizedForm form, const int16_t* a, int64_t inner, const uint8_t* b, float* sums) {
  form == QuantizedForm::kInt8 ? dot_int8<kRows>(a, inner, b, sums) : dot_int4<kRows>(a, inner, b, sums);
}

// Up to kFewRows rows: all of them meet a row of the matrix while it is read.
template <int kRows = kFewRows>
void dot_rows(QuantizedForm form, const int16_t* a, int64_t rows, int64_t inner, const uint8_t* b, float* sums) {
  if (rows == kRows) return dot<kRows>(form, a, inner, b, sums);
  if constexpr (kRows > 1) dot_rows<kRows - 1>(form, a, rows, inner, b, sums);
}

inline void put(float* to, float value) { *to = value; }
inline void put(BFloat16* to, float value) { *to = to_bfloat16(value); }

// Of one matrix with few rows.
template <class C>
void multiply_few(const QuantizedProduct<C>& product, int64_t rows, const BFloat16* a, const uint8_t* b, C* c) {
  const int64_t inner = product.inner;
  Scratch<int16_t> values(rows * inner);
  float scales[kFewRows];
  to_integers(a, rows, inner, values.data(), scales);
  auto one = product;
  one.b = b;
  one.c = c;
#pragma omp parallel for schedule(dynamic, 1) if (rows * inner * product.columns > kMinParallel)
  for (int64_t block = 0; block < product.columns; block += kBlock)
    multiply_columns(one, {values.data(), scales, rows}, block, std::min(product.columns, block + kBlock));
}

// Of one matrix, by its values in bf16.
template <class C>
void multiply_values(const QuantizedProduct<C>& product, int64_t rows, const BFloat16* a, const uint8_t* b, C* c) {
  const int64_t inner = product.inner, row_bytes = quantized_row_bytes(product.form, inner);
  Scratch<BFloat16> matrix(product.columns * inner);
#pragma omp parallel for schedule(static)
  for (int64_t column = 0; column < product.columns; ++column)
    narrow_row(product.form, b + column * row_bytes, inner, matrix.data() + column * inner);
  multiply(Product<BFloat16, C>{.a = a,
                                .b = matrix.data(),
                                .c = c,
                                .num_rows = {&rows, 1},
                                .inner = inner,
                                .columns = product.columns,
                                .transposed = true,
                                .epilogue = product.epilogue,
                                .packs_few = product.packs_few});
}

}  // namespace

// A row with elements that are not finite is 0 with a scale of NaN.
void to_integers(const BFloat16* rows, int64_t count, int64_t inner, int16_t* values, float* scales) {
  for (int64_t row = 0; row < count; ++row, rows += inner, values += inner) {
    const float largest = largest_magnitude(rows, inner);
    const float scale = largest / 32767.0f, inverse = largest > 0.0f ? 32767.0f / largest : 0.0f;
    scales[row] = std::isfinite(largest) ? scale : std::nanf("");
    if (std::isfinite(largest))
      for (int64_t i = 0; i < inner; ++i) values[i] = static_cast<int16_t>(std::nearbyint(to_float(rows[i]) * inverse));
    else
      std::fill_n(values, inner, int16_t{0});
  }
}

template <class C>
void multiply_columns(const QuantizedProduct<C>& product, const IntegerRows& rows, int64_t begin, int64_t end) {
  const int64_t inner = product.inner, row_bytes = quantized_row_bytes(product.form, inner);
  // All rows at once, or as many as stay in the first-level cache beside a few rows of the matrix, which then do too.
  const int64_t group = rows.count * inner <= kNearWords ? rows.count : kFewRows / 2;
  for (int64_t block = begin; block < end; block += kNearColumns)
    for (int64_t first = 0; first < rows.count; first += group)
      for (int64_t column = block; column < std::min(end, block + kNearColumns); ++column) {
        const int64_t count = std::min(group, rows.count - first);
        float sums[kFewRows];
        dot_rows(product.form, rows.values + first * inner, count, inner, product.b + column * row_bytes, sums);
        for (int64_t row = first; row < first + count; ++row) {
          C* to = product.c + row * product.columns + column;
          float value = rows.scales[row] * sums[row - first];
          if (product.epilogue == Epilogue::kRelu && value < 0.0f) value = 0.0f;
          put(to, product.epilogue == Epilogue::kAdd ? to_float(*to) + value : value);
        }
      }
}

template void multiply_columns(const QuantizedProduct<float>&, const IntegerRows&, int64_t, int64_t);
template void multiply_columns(const QuantizedProduct<BFloat16>&, const IntegerRows&, int64_t, int64_t);

void quantize_rows(QuantizedForm form, const float* rows, int64_t count, int64_t inner, uint8_t* to) {
  const int64_t row_bytes = quantized_row_bytes(form, inner);
#pragma omp parallel for schedule(static) if (count * inner > kMinParallel)
  for (int64_t row = 0; row < count; ++row) {
    const auto quantize = form == QuantizedForm::kInt8 ? quantize_int8 : quantize_int4;
    quantize(rows + row * inner, inner, to + row * row_bytes);
  }
}

void dequantize_rows(QuantizedForm form, const uint8_t* rows, int64_t count, int64_t inner, float* to) {
  const int64_t row_bytes = quantized_row_bytes(form, inner);
#pragma omp parallel for schedule(static) if (count * inner > kMinParallel)
  for (int64_t row = 0; row < count; ++row) dequantize_row(form, rows + row * row_bytes, inner, to + row * inner);
}

template <class C>
void multiply(const QuantizedProduct<C>& product) {
  const int64_t matrix_bytes = product.columns * quantized_row_bytes(product.form, product.inner);
  const BFloat16* a = product.a;
  C* c = product.c;
  for (size_t matrix = 0; matrix < product.num_rows.size(); ++matrix) {
    const int64_t rows = product.num_rows[matrix];
    const uint8_t* b = product.b + static_cast<int64_t>(matrix) * matrix_bytes;
    if (rows > kFewRows || (rows > 0 && product.packs_few))
      multiply_values(product, rows, a, b, c);
    else if (rows > 0)
      multiply_few(product, rows, a, b, c);
    a += rows * product.inner;
    c += rows * product.columns;
  }
}

template void multiply(const QuantizedProduct<float>&);
template void multiply(const QuantizedProduct<BFloat16>&);

}  // namespace switchyard::kernels
