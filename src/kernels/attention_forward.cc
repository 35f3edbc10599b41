#include <cmath>

#include "kernels/attention.h"
#include "kernels/attention_pieces.h"
#include "kernels/brgemm.h"

namespace switchyard::kernels {
namespace {

// A thread's buffers; sizes for the padded lengths q, k and width d.
template <class T>
struct ForwardBuffers {
  Buffer<T> rows;             // [64][d] rows on their way to a packed form, and the queries of a block
  Buffer<T> k_packed;         // [k/64] panels, each the packed [d][64]
  Buffer<T> v_packed;         // [d/64] panels, each the packed [k][64 or the rest of d]
  Buffer<float> bias;         // [64 + distances + 64]
  Buffer<float> mask;         // [k]: 0, or -inf where masked or past the end
  Buffer<float> scores;       // [k/64][rows][64]
  Buffer<T> probabilities;    // [rows][k + 32]
  Buffer<float> maxima;       // [rows][16]
  Buffer<float> result;       // [rows][64]
};

// Rows of a block: as many as keep scores and probabilities in the second-level cache.
int64_t block_rows(int64_t padded_keys) { return padded_keys <= 1024 ? kBlock : padded_keys <= 2048 ? kBlock / 2 : kBlock / 4; }

// scores = scores log2 e + bias (+ mask) for one [rows][64] tile, and the running maxima of its rows. bias points at the entry of
// (row 0, column 0); each further row's begins one entry earlier.
template <bool kMasked>
void add_bias(float* scores, int64_t rows, const float* bias, const float* mask, float* maxima) {
  for (int64_t row = 0; row < rows; ++row) {
    F32x16 maximum = load(maxima + row * kLanes);
    for (int64_t column = 0; column < kBlock; column += kLanes) {
      F32x16 score = fma(load(scores + row * kBlock + column), splat(kLog2e), load(bias - row + column));
      if constexpr (kMasked) score = score + load(mask + column);
      store(scores + row * kBlock + column, score);
      maximum = max(score, maximum);
    }
    store(maxima + row * kLanes, maximum);
  }
}

// probabilities[column] = 2^(scores - maximum) of one row over its panels; returns their sum in f32.
template <class T>
float exponentials(const float* scores, int64_t panel_stride, int64_t num_panels, float maximum, T* probabilities) {
  const F32x16 shift = splat(maximum);
  F32x16 sum[2] = {splat(0.0f), splat(0.0f)};
  for (int64_t panel = 0; panel < num_panels; ++panel) {
    const float* from = scores + panel * panel_stride;
    T* to = probabilities + panel * kBlock;
    for (int64_t column = 0; column < kBlock; column += 2 * kLanes) {
      const F32x16 first = exp2(load(from + column) - shift);
      const F32x16 second = exp2(load(from + column + kLanes) - shift);
      sum[0] = sum[0] + first;
      sum[1] = sum[1] + second;
      store(to + column, first);
      store(to + column + kLanes, second);
    }
  }
  return reduce_add(sum[0] + sum[1]);
}

template <class T>
void forward_head(const AttentionArguments<T>& arguments, int64_t batch, int64_t head, Rows<T> out, float* log2_sum_exp,
                  ForwardBuffers<T>& buffers) {
  const int64_t query_length = arguments.query_length, d_kv = arguments.d_kv;
  const int64_t num_keys = used_keys(arguments, batch);
  const int64_t keys = round_up(num_keys, kBlock), width = round_up(d_kv, 32);
  const int64_t distances = query_length + arguments.key_length - 1;

  T* rows = buffers.rows.reserve(kBlock * width);
  T* k_packed = buffers.k_packed.reserve(keys * width);
  T* v_packed = buffers.v_packed.reserve(keys * width);
  for (int64_t key = 0; key < keys; key += kBlock) {
    const int64_t count = std::min(kBlock, num_keys - key);
    copy_rows(head_rows(arguments.k, batch, head, d_kv) + key * arguments.k.row_stride, arguments.k.row_stride, count, d_kv, rows,
              kBlock, width);
    pack_transposed(rows, width, kBlock, width, k_packed + key * width);
    copy_rows(head_rows(arguments.v, batch, head, d_kv) + key * arguments.v.row_stride, arguments.v.row_stride, count, d_kv, rows,
              kBlock, width);
    for (int64_t column = 0; column < width; column += kBlock) {
      const int64_t columns = std::min(kBlock, width - column);
      pack_rows(rows + column, width, kBlock, columns, v_packed + column * keys + key * columns);
    }
  }

  float* bias = buffers.bias.reserve(distances + 2 * kBlock) + kBlock;
  std::fill(bias - kBlock, bias, 0.0f);
  for (int64_t entry = 0; entry < distances; ++entry) bias[entry] = distance_term(arguments, head, entry);
  std::fill(bias + distances, bias + distances + kBlock, 0.0f);

  float* mask = buffers.mask.reserve(keys);
  for (int64_t key = 0; key < keys; ++key) {
    const bool seen = key < num_keys && (arguments.key_mask == nullptr || arguments.key_mask[batch * arguments.key_length + key]);
    mask[key] = seen ? 0.0f : -kInfinity;
  }

  const int64_t step = block_rows(keys);
  const int64_t probability_stride = keys + 32;  // off the powers of two, which would share cache sets
  float* scores = buffers.scores.reserve(step * keys);
  T* probabilities = buffers.probabilities.reserve(step * probability_stride);
  float* maxima = buffers.maxima.reserve(step * kLanes);
  float* result = buffers.result.reserve(step * kBlock);
  alignas(64) float inverse_sum[kBlock];

  for (int64_t query = 0; query < query_length; query += step) {
    const int64_t count = std::min(step, query_length - query), padded_count = round_up(count, kLanes);
    const int64_t seen_keys =
        arguments.causal ? std::min(num_keys, query + count + arguments.query_offset) : num_keys;
    const int64_t num_panels = round_up(seen_keys, kBlock) / kBlock;
    copy_rows(head_rows(arguments.q, batch, head, d_kv) + query * arguments.q.row_stride, arguments.q.row_stride, count, d_kv, rows,
              padded_count, width);

    std::fill(maxima, maxima + padded_count * kLanes, -kInfinity);
    for (int64_t panel = 0; panel < num_panels; ++panel) {
      const int64_t key = panel * kBlock;
      float* tile = scores + panel * step * kBlock;
      brgemm(padded_count, kBlock, width, width, kBlock, kBlock, /*add=*/false, rows, k_packed + key * width, tile);
      const float* tile_bias = bias + key - query + query_length - 1;
      const bool masked = std::any_of(mask + key, mask + key + kBlock, [](float term) { return term != 0.0f; });
      (masked ? add_bias<true> : add_bias<false>)(tile, padded_count, tile_bias, mask + key, maxima);
    }

    for (int64_t row = 0; row < padded_count; ++row) {
      // Finite for a query that sees no key, so that its probabilities are 2^-inf and not NaN.
      const float maximum = std::max(reduce_max(load(maxima + row * kLanes)), -1e30f);
      const float sum =
          exponentials(scores + row * kBlock, step * kBlock, num_panels, maximum, probabilities + row * probability_stride);
      const bool sees_no_key = sum == 0.0f;
      inverse_sum[row] = sees_no_key ? 0.0f : 1.0f / sum;
      if (log2_sum_exp != nullptr && row < count) log2_sum_exp[query + row] = sees_no_key ? kInfinity : maximum + std::log2(sum);
    }

    T* out_rows = head_rows(out, batch, head, d_kv) + query * out.row_stride;
    for (int64_t column = 0; column < d_kv; column += kBlock) {
      const int64_t columns = std::min(kBlock, width - column);
      if (num_panels > 0)
        brgemm(padded_count, columns, num_panels * kBlock, probability_stride, columns, kBlock, /*add=*/false, probabilities,
               v_packed + column * keys, result);
      else
        std::fill(result, result + padded_count * kBlock, 0.0f);
      for (int64_t row = 0; row < count; ++row)
        store_scaled(result + row * kBlock, inverse_sum[row], out_rows + row * out.row_stride + column,
                     std::min(columns, d_kv - column));
    }
  }
}

}  // namespace

template <class T>
void attention_forward(const AttentionArguments<T>& arguments, Rows<T> out, float* log2_sum_exp) {
  const int64_t items = arguments.batch * arguments.num_heads;
#pragma omp parallel
  {
    static thread_local ForwardBuffers<T> buffers;
#pragma omp for schedule(dynamic, 1)
    for (int64_t item = 0; item < items; ++item)
      forward_head(arguments, item / arguments.num_heads, item % arguments.num_heads, out,
                   log2_sum_exp == nullptr ? nullptr : log2_sum_exp + item * arguments.query_length, buffers);
    brgemm_release();
  }
}

template void attention_forward(const AttentionArguments<float>&, Rows<float>, float*);
template void attention_forward(const AttentionArguments<BFloat16>&, Rows<BFloat16>, float*);

}  // namespace switchyard::kernels
