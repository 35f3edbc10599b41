#include <cmath>

#include "kernels/attention.h"
#include "kernels/attention_pieces.h"
#include "kernels/brgemm.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kChunk = 1024;  // keys whose probabilities a block of queries holds at a time
// Sums of exponentials up to this are accepted with the shift of the first keys; the products with v stay far from
// overflow.
constexpr float kLargestSum = 0x1p70f;

// A thread's buffers; sizes for the padded number of keys k and width d.
template <class T>
struct ForwardBuffers {
  Buffer<T> rows;           // [64][d]: keys and values on their way to a packed form, then the queries of a block
  Buffer<T> k_packed;       // [k/64] panels, each the packed [d][64]
  Buffer<T> v_packed;       // [d/64] panels, each the packed [k][64 or the rest of d]
  Buffer<float> bias;       // [64 + distances + 64]
  Buffer<float> mask;       // [k]: 0, or kHidden where masked or past the end
  Buffer<float> scores;     // [64][64]
  Buffer<T> probabilities;  // [64][chunk + 32]
  Buffer<float> sums;       // [64][16]: sixteen partial sums a row
  Buffer<float> result;     // [d/64][64][64]
};

// What turns one [rows][64] tile of products q . k into scores in units of log2.
struct ScoreTerms {
  const float* bias;  // entry of (row 0, column 0); each further row's begins one entry earlier
  const float* mask;  // [64], or null: nothing is masked
};

template <bool kMasked>
F32x16 score(const float* product, const ScoreTerms& terms, int64_t row, int64_t column) {
  const F32x16 result = fma(load(product + row * kBlock + column), splat(kLog2e), load(terms.bias - row + column));
  if constexpr (kMasked) return result + load(terms.mask + column);
  return result;
}

template <bool kMasked>
void update_maxima(const float* products, const ScoreTerms& terms, int64_t rows, float* maxima) {
  for (int64_t row = 0; row < rows; ++row) {
    F32x16 maximum = score<kMasked>(products, terms, row, 0);
    for (int64_t column = kLanes; column < kBlock; column += kLanes)
      maximum = max(score<kMasked>(products, terms, row, column), maximum);
    maxima[row] = std::max(maxima[row], reduce_max(maximum));
  }
}

// probabilities [rows][64] = 2^(score - shift[row]), added to the partial sums as f32.
template <bool kMasked, class T>
void exponentiate(const float* products, const ScoreTerms& terms, int64_t rows, const float* shift, T* probabilities,
                  int64_t stride, float* sums) {
  for (int64_t row = 0; row < rows; ++row) {
    const F32x16 row_shift = splat(shift[row]);
    F32x16 exponential[kBlock / kLanes];
    for (int64_t i = 0; i < kBlock / kLanes; ++i)
      exponential[i] = exp2_finite(score<kMasked>(products, terms, row, i * kLanes) - row_shift);
    store_wide(probabilities + row * stride, exponential[0], exponential[1]);
    store_wide(probabilities + row * stride + 2 * kLanes, exponential[2], exponential[3]);
    float* sum = sums + row * kLanes;
    store(sum, load(sum) + ((exponential[0] + exponential[1]) + (exponential[2] + exponential[3])));
  }
}

// Reads the keys' side of one head: k and v in packed form, and the mask. keys and width are the padded sizes.
template <class T>
void pack_keys(const AttentionArguments<T>& arguments, int64_t batch, int64_t head, int64_t num_keys, int64_t keys,
               int64_t width, ForwardBuffers<T>& buffers) {
  T* rows = buffers.rows.reserve(kBlock * width);
  T* k_packed = buffers.k_packed.reserve(keys * width);
  T* v_packed = buffers.v_packed.reserve(keys * width);
  for (int64_t key = 0; key < keys; key += kBlock) {
    const auto copy = [&](Rows<const T> from) {
      copy_rows(head_rows(from, batch, head, arguments.d_kv) + key * from.row_stride, from.row_stride,
                std::min(kBlock, num_keys - key), arguments.d_kv, rows, kBlock, width);
    };
    copy(arguments.k);
    pack_transposed(rows, width, kBlock, width, k_packed + key * width);
    copy(arguments.v);
    for (int64_t column = 0; column < width; column += kBlock) {
      const int64_t columns = std::min(kBlock, width - column);
      pack_rows(rows + column, width, kBlock, columns, v_packed + column * keys + key * columns);
    }
  }
  float* mask = buffers.mask.reserve(keys);
  for (int64_t key = 0; key < keys; ++key) {
    const bool seen =
        key < num_keys && (arguments.key_mask == nullptr || arguments.key_mask[batch * arguments.key_length + key]);
    mask[key] = seen ? 0.0f : kHidden;
  }
}

// One (batch, head): its keys up to the last that may be attended, and the padded sizes.
template <class T>
struct Head {
  const AttentionArguments<T>& arguments;
  int64_t batch, index;
  int64_t num_keys, keys, width;
  const float* bias;  // of distance_terms()
  ForwardBuffers<T>& buffers;

  int64_t stride() const { return std::min(keys, kChunk) + kPadding; }  // of the probabilities
};

// Up to 64 of its queries, the keys that they see (padded) and what their scores are shifted by.
struct QueryBlock {
  int64_t first, count, padded_count;
  int64_t seen;
  float* shift;  // [64]
};

template <class T>
void multiply_tile(const Head<T>& head, const QueryBlock& block, int64_t key) {
  brgemm(block.padded_count, kBlock, head.width, head.width, kBlock, kBlock, /*add=*/false, head.buffers.rows.data(),
         head.buffers.k_packed.data() + key * head.width, head.buffers.scores.data());
}

template <class T>
ScoreTerms terms(const Head<T>& head, const QueryBlock& block, int64_t key) {
  const float* mask = head.buffers.mask.data() + key;
  const bool masked = std::any_of(mask, mask + kBlock, [](float term) { return term != 0.0f; });
  return {.bias = head.bias + key - block.first + head.arguments.query_length - 1, .mask = masked ? mask : nullptr};
}

template <class T>
void find_maxima(const Head<T>& head, const QueryBlock& block, int64_t key) {
  const ScoreTerms tile = terms(head, block, key);
  const float* scores = head.buffers.scores.data();
  multiply_tile(head, block, key);
  tile.mask == nullptr ? update_maxima<false>(scores, tile, block.padded_count, block.shift)
                       : update_maxima<true>(scores, tile, block.padded_count, block.shift);
}

// Probabilities against the present shifts, their sums and their products with v. False if a sum is too large.
template <class T>
bool attend(const Head<T>& head, const QueryBlock& block, bool first_tile_is_made) {
  const int64_t stride = head.stride(), rows = block.padded_count;
  const float* scores = head.buffers.scores.data();
  T* probabilities = head.buffers.probabilities.data();
  float* sums = head.buffers.sums.data();
  std::fill(sums, sums + rows * kLanes, 0.0f);
  for (int64_t chunk = 0; chunk < block.seen; chunk += kChunk) {
    const int64_t chunk_end = std::min(chunk + kChunk, block.seen);
    for (int64_t key = chunk; key < chunk_end; key += kBlock) {
      const ScoreTerms tile = terms(head, block, key);
      if (key > 0 || !first_tile_is_made) multiply_tile(head, block, key);
      T* to = probabilities + key - chunk;
      tile.mask == nullptr ? exponentiate<false>(scores, tile, rows, block.shift, to, stride, sums)
                           : exponentiate<true>(scores, tile, rows, block.shift, to, stride, sums);
    }
    for (int64_t column = 0; column < head.width; column += kBlock) {
      const int64_t columns = std::min(kBlock, head.width - column);
      brgemm(rows, columns, chunk_end - chunk, stride, columns, kBlock, /*add=*/chunk > 0, probabilities,
             head.buffers.v_packed.data() + column * head.keys + chunk * columns,
             head.buffers.result.data() + column * kBlock);
    }
  }
  for (int64_t row = 0; row < rows; ++row)
    if (!(reduce_add(load(sums + row * kLanes)) <= kLargestSum)) return false;
  return true;
}

// Divides the block's results by their sums.
template <class T>
void store_block(const Head<T>& head, const QueryBlock& block, Rows<T> out, float* log2_sum_exp) {
  const int64_t d_kv = head.arguments.d_kv;
  T* out_rows = head_rows(out, head.batch, head.index, d_kv) + block.first * out.row_stride;
  for (int64_t row = 0; row < block.count; ++row) {
    const float sum = reduce_add(load(head.buffers.sums.data() + row * kLanes));
    const bool sees_no_key = sum == 0.0f;
    if (log2_sum_exp != nullptr)
      log2_sum_exp[block.first + row] = sees_no_key ? -kHidden : block.shift[row] + std::log2(sum);
    for (int64_t column = 0; column < d_kv; column += kBlock) {
      T* to = out_rows + row * out.row_stride + column;
      const int64_t columns = std::min(kBlock, d_kv - column);
      if (sees_no_key)
        std::memset(static_cast<void*>(to), 0, sizeof(T) * columns);
      else
        store_scaled(head.buffers.result.data() + column * kBlock + row * kBlock, 1.0f / sum, to, columns);
    }
  }
}

template <class T>
void forward_head(const AttentionArguments<T>& arguments, int64_t batch, int64_t index, Rows<T> out,
                  float* log2_sum_exp, ForwardBuffers<T>& buffers) {
  const int64_t num_keys = used_keys(arguments, batch);
  const Head<T> head{.arguments = arguments,
                     .batch = batch,
                     .index = index,
                     .num_keys = num_keys,
                     .keys = round_up(num_keys, kBlock),
                     .width = round_up(arguments.d_kv, 32),
                     .bias = distance_terms(arguments, index, /*descending=*/false, buffers.bias),
                     .buffers = buffers};
  pack_keys(arguments, batch, index, num_keys, head.keys, head.width, buffers);
  T* rows = buffers.rows.reserve(kBlock * head.width);
  buffers.scores.reserve(kBlock * kBlock);
  buffers.probabilities.reserve(kBlock * head.stride());
  buffers.sums.reserve(kBlock * kLanes);
  buffers.result.reserve(round_up(head.width, kBlock) * kBlock);
  alignas(64) float shift[kBlock];

  for (int64_t query = 0; query < arguments.query_length; query += kBlock) {
    const int64_t count = std::min(kBlock, arguments.query_length - query), padded_count = round_up(count, kLanes);
    const int64_t num_seen = arguments.causal ? std::min(num_keys, query + count + arguments.query_offset) : num_keys;
    const QueryBlock block{query, count, padded_count, round_up(num_seen, kBlock), shift};
    copy_rows(head_rows(arguments.q, batch, index, arguments.d_kv) + query * arguments.q.row_stride,
              arguments.q.row_stride, count, arguments.d_kv, rows, padded_count, head.width);
    std::fill(shift, shift + padded_count, kUnseen);
    if (block.seen > 0) find_maxima(head, block, 0);
    if (!attend(head, block, /*first_tile_is_made=*/true)) {
      for (int64_t key = kBlock; key < block.seen; key += kBlock) find_maxima(head, block, key);
      attend(head, block, /*first_tile_is_made=*/false);
    }
    store_block(head, block, out, log2_sum_exp);
  }
}

}  // namespace

template <class T>
void attention_forward(const AttentionArguments<T>& arguments, Rows<T> out, float* log2_sum_exp) {
  const int64_t items = arguments.batch * arguments.num_heads;
  RegionErrors errors;
#pragma omp parallel if (worth_threads(arguments))
  {
    static thread_local ForwardBuffers<T> buffers;
#pragma omp for schedule(dynamic, 1)
    for (int64_t item = 0; item < items; ++item)
      errors.run([&] {
        const int64_t batch = item / arguments.num_heads, head = item % arguments.num_heads;
        float* sums = log2_sum_exp == nullptr ? nullptr : log2_sum_exp + item * arguments.query_length;
        if (arguments.runs == nullptr) return forward_head(arguments, batch, head, out, sums, buffers);
        for (int64_t n = arguments.first_run[batch]; n < arguments.first_run[batch + 1]; ++n) {
          const auto& run = arguments.runs[n];
          forward_head(arguments_of(arguments, batch, head, run), 0, 0,
                       part_of(out, batch, head, arguments.d_kv, run.first_query),
                       sums == nullptr ? nullptr : sums + run.first_query, buffers);
        }
      });
    brgemm_release();
  }
  errors.rethrow();
}

template void attention_forward(const AttentionArguments<float>&, Rows<float>, float*);
template void attention_forward(const AttentionArguments<BFloat16>&, Rows<BFloat16>, float*);

}  // namespace switchyard::kernels
