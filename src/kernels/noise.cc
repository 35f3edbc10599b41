#include "kernels/noise.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/lanes.h"
#include "kernels/scratch.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kBatch = 64;  // uniforms made together: sixteen Philox blocks of four

#ifdef SWITCHYARD_LANES_AVX512

// The two halves of the 64-bit products of sixteen 32-bit numbers by one.
void multiply(__m512i a, uint32_t factor, __m512i& high, __m512i& low) {
  const auto b = _mm512_set1_epi64(factor);
  const auto even = _mm512_mul_epu32(a, b), odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), b);
  low = _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
  high = _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
}

// Uniforms 4 * first_block .. + 63 of a subsequence.
void fill_batch(StreamKey key, uint64_t row, uint64_t first_block, float* to) {
  const auto lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  // first_block is a multiple of sixteen, so that the low word does not carry within a batch.
  __m512i counter[4] = {_mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(first_block)), lane),
                        _mm512_set1_epi32(static_cast<int>(first_block >> 32)),
                        _mm512_set1_epi32(static_cast<int>(row)), _mm512_set1_epi32(static_cast<int>(row >> 32))};
  for (int round = 0; round < 10; ++round) {
    __m512i high0, low0, high1, low1;
    multiply(counter[0], 0xD2511F53, high0, low0);
    multiply(counter[2], 0xCD9E8D57, high1, low1);
    counter[0] = _mm512_xor_si512(_mm512_xor_si512(high1, counter[1]), _mm512_set1_epi32(static_cast<int>(key[0])));
    counter[1] = low1;
    counter[2] = _mm512_xor_si512(_mm512_xor_si512(high0, counter[3]), _mm512_set1_epi32(static_cast<int>(key[1])));
    counter[3] = low0;
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  // Word w of block b is number 4 b + w: a 4 x 16 transpose, first within 128-bit pieces, then of the pieces.
  const auto a = _mm512_unpacklo_epi32(counter[0], counter[1]), b = _mm512_unpackhi_epi32(counter[0], counter[1]);
  const auto c = _mm512_unpacklo_epi32(counter[2], counter[3]), d = _mm512_unpackhi_epi32(counter[2], counter[3]);
  const __m512i block[4] = {_mm512_unpacklo_epi64(a, c), _mm512_unpackhi_epi64(a, c), _mm512_unpacklo_epi64(b, d),
                            _mm512_unpackhi_epi64(b, d)};
  const auto low01 = _mm512_shuffle_i32x4(block[0], block[1], 0x44),
             low23 = _mm512_shuffle_i32x4(block[2], block[3], 0x44);
  const auto high01 = _mm512_shuffle_i32x4(block[0], block[1], 0xEE),
             high23 = _mm512_shuffle_i32x4(block[2], block[3], 0xEE);
  const __m512i words[4] = {_mm512_shuffle_i32x4(low01, low23, 0x88), _mm512_shuffle_i32x4(low01, low23, 0xDD),
                            _mm512_shuffle_i32x4(high01, high23, 0x88), _mm512_shuffle_i32x4(high01, high23, 0xDD)};
  for (int64_t part = 0; part < 4; ++part)
    _mm512_storeu_ps(to + 16 * part,
                     _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srli_epi32(words[part], 8)), _mm512_set1_ps(0x1p-24f)));
}

#else

void fill_batch(StreamKey key, uint64_t row, uint64_t first_block, float* to) {
  for (uint64_t block = first_block; block < first_block + 16; ++block)
    for (const uint32_t word : philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                                       static_cast<uint32_t>(row), static_cast<uint32_t>(row >> 32)},
                                      key))
      *to++ = to_uniform(word);
}

#endif

// Uniforms to dropout's factors, in place: 0 below the rate, else 1 / (1 - rate).
void uniform_to_dropout(float* row, int64_t width, float rate) {
  const F32x16 bound = splat(rate), kept = splat(1.0f / (1.0f - rate));
  for (int64_t i = 0; i < width; i += kLanes) store(row + i, where_at_least(load(row + i), bound, kept));
}

}  // namespace

void fill_uniform(const StreamKey& key, uint64_t row, int64_t width, float* to, int64_t first) {
  for (int64_t column = 0; column < width; column += kBatch)
    fill_batch(key, row, static_cast<uint64_t>((first + column) / 4), to + column);
}

template <class X, class Y>
void multiply_noise(const StreamKey& key, uint64_t first_row, const int64_t* numbers, const X* x, Y* y, int64_t rows,
                    int64_t width, const ElementNoise& noise) {
  ThreadScratch<float> buffer(width + kBatch);
#pragma omp parallel if (rows * width > 8192)
  {
    float* factors = buffer.data();
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      const uint64_t number =
          numbers != nullptr ? static_cast<uint64_t>(numbers[row]) : first_row + static_cast<uint64_t>(row);
      fill_uniform(key, number, width, factors);
      if (noise.rate > 0.0f) {
        uniform_to_dropout(factors, width, noise.rate);
      } else {
        const F32x16 range = splat(2.0f * noise.spread), low = splat(1.0f - noise.spread);
        for (int64_t i = 0; i < width; i += kLanes) store(factors + i, fma(load(factors + i), range, low));
      }
      const X* from = x + row * width;
      Y* to = y + row * width;
      int64_t i = 0;
      for (; i + kLanes <= width; i += kLanes) store(to + i, load(from + i) * load(factors + i));
      for (; i < width; ++i) {
        const float product = to_float(from[i]) * factors[i];
        if constexpr (std::is_same_v<Y, float>)
          to[i] = product;
        else
          to[i] = to_bfloat16(product);
      }
    }
  }
}

const float* DropoutRow::factors(int64_t row) {
  if (dropout_.rate == 0.0f) return nullptr;
  const uint64_t number = dropout_.number(row);
  if (filled_ && number == number_) return buffer_;
  fill_uniform(dropout_.key, number, width_, buffer_, dropout_.first_column);
  uniform_to_dropout(buffer_, width_, dropout_.rate);
  filled_ = true;
  number_ = number;
  return buffer_;
}

template void multiply_noise(const StreamKey&, uint64_t, const int64_t*, const float*, float*, int64_t, int64_t,
                             const ElementNoise&);
template void multiply_noise(const StreamKey&, uint64_t, const int64_t*, const BFloat16*, float*, int64_t, int64_t,
                             const ElementNoise&);
template void multiply_noise(const StreamKey&, uint64_t, const int64_t*, const float*, BFloat16*, int64_t, int64_t,
                             const ElementNoise&);

}  // namespace switchyard::kernels
