#include "kernels/attention.h"
#include "kernels/attention_pieces.h"
#include "kernels/brgemm.h"

namespace switchyard::kernels {
namespace {

// With P the probabilities, recomputed from the saved sums, and delta[i] = d_out[i] . out[i]:
//   dS = P o (d_out v^T - delta),  d_v = P^T d_out,  d_k = dS^T q,  d_q = dS k,  d_bias[distance] = sum of its diagonal
//   of dS
// Scores are made transposed, [64 keys][queries]. So P^T and dS^T are first operands as they stand, and dS^T with its
// rows interleaved is the second operand of d_q^T = k^T dS^T, which alone accumulates in memory, over the blocks of
// keys.

// A thread's buffers; sizes for the padded lengths q (queries) and width d.
template <class T>
struct BackwardBuffers {
  Buffer<T> rows;          // [64][d]
  Buffer<T> q_transposed;  // [q/64] panels, each the packed [d][64]; d_out_transposed the same
  Buffer<T> d_out_transposed;
  Buffer<T> q_packed;  // [d/64] panels, each the packed [q][64 or the rest of d]; d_out_packed the same
  Buffer<T> d_out_packed;
  Buffer<float> log2_sum_exp;  // [q], -kHidden past the end; delta [q], 0 past the end
  Buffer<float> delta;
  Buffer<float> bias;             // [64 + distances + 64], descending distance: along a row of S^T
  Buffer<float> d_bias;           // the same
  Buffer<float> run_d_bias;       // [distances] of a run
  Buffer<float> hidden;           // [q]: the bias of a key that is never attended
  Buffer<T> k_rows, v_rows;       // [64][d]
  Buffer<T> k_panel;              // the packed [d][64] of the block's keys, then split into k_columns
  Buffer<T> k_columns;            // [d][64]
  Buffer<float> scores;           // [64][64]
  Buffer<float> d_probabilities;  // [64][64]
  Buffer<T> probabilities;        // P^T [64][q + 32]
  Buffer<T> d_scores;             // dS^T [64][q + 32]
  Buffer<T> d_scores_packed;      // one [64][64] tile of it, rows interleaved; unused for f32
  Buffer<float> d_q_transposed;   // [q/64][d][64]
  Buffer<float> result;           // [64][64]
};

// One [rows][64] tile of S^T: what it reads and writes. Strides in elements; pointers at the tile's first query.
template <class T>
struct Tile {
  const float* scores;
  const float* d_probabilities;
  const float* const* bias;  // [rows]: the bias along each key's row, at query 0 of the sequence
  int64_t query;             // the tile's first
  const float* log2_sum_exp;
  const float* delta;
  T* probabilities;
  T* d_scores;
  int64_t stride;  // of the two above
  T* d_scores_packed;
  float* d_bias;  // at (key 0, query 0) of the tile; each further key's begins one entry earlier; null: not wanted
};

inline void store_d_scores(BFloat16* row0, BFloat16* row1, BFloat16* packed, F32x16 first, F32x16 second) {
  store_pair_interleaved(row0, row1, packed, first, second);
}
inline void store_d_scores(float* row0, float* row1, float*, F32x16 first, F32x16 second) {
  store_pair(row0, row1, first, second);
}

inline void accumulate(float* to, F32x16 x) { store(to, load(to) + x); }

// Probabilities and score gradients of a tile, sixteen queries at a time. Along a diagonal, key and query grow
// together, so the sums of sixteen neighbouring diagonals stay in a register that moves up a lane with each key; what
// leaves is complete.
template <class T, bool kBiasGradient>
void differentiate_tile(const Tile<T>& tile, int64_t rows) {
  for (int64_t query = 0; query < kBlock; query += kLanes) {
    const F32x16 log2_sum_exp = load(tile.log2_sum_exp + query), delta = load(tile.delta + query);
    F32x16 diagonals = splat(0.0f), complete = splat(0.0f);
    for (int64_t key = 0; key < rows; key += 2) {
      F32x16 probability[2], d_score[2];
      for (int64_t i = 0; i < 2; ++i) {
        const int64_t offset = (key + i) * kBlock + query;
        const F32x16 score =
            fma(load(tile.scores + offset), splat(kLog2e), load(tile.bias[key + i] + tile.query + query));
        probability[i] = exp2_finite(score - log2_sum_exp);
        d_score[i] = probability[i] * (load(tile.d_probabilities + offset) - delta);
        if constexpr (kBiasGradient) {
          diagonals = shift_up(diagonals, splat(0.0f)) + d_score[i];
          complete = shift_up(complete, diagonals);
        }
      }
      T* to = tile.probabilities + key * tile.stride + query;
      store_pair(to, to + tile.stride, probability[0], probability[1]);
      to = tile.d_scores + key * tile.stride + query;
      store_d_scores(to, to + tile.stride, tile.d_scores_packed + key * kBlock + 2 * query, d_score[0], d_score[1]);
      if constexpr (kBiasGradient)
        if ((key + 2) % kLanes == 0) accumulate(tile.d_bias + query - (key + 1) + (kLanes - 1), complete);
    }
    if constexpr (kBiasGradient) accumulate(tile.d_bias + query - rows, shift_up(diagonals, splat(0.0f)));
  }
}

// The block's keys [64][width] as [width][64].
inline void transpose_rows(const BFloat16* rows, int64_t width, BFloat16* panel, BFloat16* columns) {
  pack_transposed(rows, width, kBlock, width, panel);
  for (int64_t column = 0; column < width; column += 2)
    deinterleave(panel + column * kBlock, columns + column * kBlock, columns + (column + 1) * kBlock, kBlock);
}
inline void transpose_rows(const float* rows, int64_t width, float*, float* columns) {
  pack_transposed(rows, width, kBlock, width, columns);
}

template <class T>
void zero_rows(T* to, int64_t row_stride, int64_t count, int64_t d_kv) {
  for (int64_t row = 0; row < count; ++row) std::memset(static_cast<void*>(to + row * row_stride), 0, sizeof(T) * d_kv);
}

// One (batch, head) and its padded sizes.
template <class T>
struct Head {
  const AttentionArguments<T>& arguments;
  int64_t batch, index;
  int64_t queries, width;  // multiples of 64 and 32
  BackwardBuffers<T>& buffers;
};

// Reads the queries' side: q and d_out in both packed forms, the saved sums and delta.
template <class T>
void pack_queries(const Head<T>& head, Rows<const T> out, Rows<const T> d_out, const float* log2_sum_exp) {
  const auto& [arguments, batch, index, queries, width, buffers] = head;
  const int64_t d_kv = arguments.d_kv, query_length = arguments.query_length;
  T* rows = buffers.rows.reserve(kBlock * width);
  T* q_transposed = buffers.q_transposed.reserve(queries * width);
  T* q_packed = buffers.q_packed.reserve(queries * width);
  T* d_out_transposed = buffers.d_out_transposed.reserve(queries * width);
  T* d_out_packed = buffers.d_out_packed.reserve(queries * width);
  float* delta = buffers.delta.reserve(queries);
  for (int64_t query = 0; query < queries; query += kBlock) {
    const int64_t count = std::min(kBlock, query_length - query);
    const auto pack = [&](Rows<const T> from, T* transposed, T* packed) {
      copy_rows(head_rows(from, head.batch, head.index, d_kv) + query * from.row_stride, from.row_stride, count, d_kv,
                rows, kBlock, head.width);
      pack_transposed(rows, head.width, kBlock, head.width, transposed + query * head.width);
      for (int64_t column = 0; column < head.width; column += kBlock) {
        const int64_t columns = std::min(kBlock, head.width - column);
        pack_rows(rows + column, head.width, kBlock, columns, packed + column * head.queries + query * columns);
      }
    };
    pack(arguments.q, q_transposed, q_packed);
    pack(d_out, d_out_transposed, d_out_packed);
    // rows still holds d_out.
    const T* out_rows = head_rows(out, batch, index, d_kv) + query * out.row_stride;
    for (int64_t row = 0; row < count; ++row)
      delta[query + row] = dot(rows + row * width, out_rows + row * out.row_stride, d_kv);
    std::fill(delta + query + count, delta + query + kBlock, 0.0f);
  }
  float* sums = buffers.log2_sum_exp.reserve(queries);
  std::copy_n(log2_sum_exp, query_length, sums);
  std::fill(sums + query_length, sums + queries, -kHidden);
}

// Fills P^T and dS^T of `count` keys for the queries from `first` on, and adds to d_q^T and the diagonals' sums (unless
// null).
template <class T>
void differentiate_keys(const Head<T>& head, int64_t key, int64_t count, int64_t first, const float* bias,
                        float* d_bias) {
  const auto& [arguments, batch, index, queries, width, buffers] = head;
  const int64_t rows = round_up(count, kLanes), stride = queries + kPadding;
  const auto copy_keys = [&](Rows<const T> from, T* to) {
    copy_rows(head_rows(from, head.batch, head.index, head.arguments.d_kv) + key * from.row_stride, from.row_stride,
              count, head.arguments.d_kv, to, kBlock, head.width);
  };
  T* k_rows = buffers.k_rows.reserve(kBlock * width);
  T* v_rows = buffers.v_rows.reserve(kBlock * width);
  T* k_columns = buffers.k_columns.reserve(kBlock * width);
  copy_keys(arguments.k, k_rows);
  copy_keys(arguments.v, v_rows);
  transpose_rows(k_rows, width, buffers.k_panel.reserve(kBlock * width), k_columns);

  const float* bias_rows[kBlock];  // of each key, at query 0
  for (int64_t row = 0; row < rows; ++row) {
    const bool seen =
        row < count && (arguments.key_mask == nullptr || arguments.key_mask[batch * arguments.key_length + key + row]);
    bias_rows[row] = seen ? bias + arguments.key_length - 1 - (key + row) : buffers.hidden.data();
  }
  float* scores = buffers.scores.reserve(kBlock * kBlock);
  float* d_probabilities = buffers.d_probabilities.reserve(kBlock * kBlock);
  T* probabilities = buffers.probabilities.reserve(kBlock * stride);
  T* d_scores = buffers.d_scores.reserve(kBlock * stride);
  T* d_scores_packed = buffers.d_scores_packed.reserve(kBlock * kBlock);
  for (int64_t query = first; query < queries; query += kBlock) {
    brgemm(rows, kBlock, width, width, kBlock, kBlock, /*add=*/false, k_rows,
           buffers.q_transposed.data() + query * width, scores);
    brgemm(rows, kBlock, width, width, kBlock, kBlock, /*add=*/false, v_rows,
           buffers.d_out_transposed.data() + query * width, d_probabilities);
    const Tile<T> tile{.scores = scores,
                       .d_probabilities = d_probabilities,
                       .bias = bias_rows,
                       .query = query,
                       .log2_sum_exp = buffers.log2_sum_exp.data() + query,
                       .delta = buffers.delta.data() + query,
                       .probabilities = probabilities + query,
                       .d_scores = d_scores + query,
                       .stride = stride,
                       .d_scores_packed = d_scores_packed,
                       .d_bias = d_bias == nullptr ? nullptr : d_bias + arguments.key_length - 1 - key + query};
    d_bias == nullptr ? differentiate_tile<T, false>(tile, rows) : differentiate_tile<T, true>(tile, rows);

    constexpr bool kPacked = kPerWord<T> == 2;  // else dS^T as it stands is a second operand
    for (int64_t column = 0; column < width; column += kBlock)
      brgemm(std::min(kBlock, width - column), kBlock, rows, kBlock, kPacked ? kBlock : stride, kBlock,
             /*add=*/key > 0, k_columns + column * kBlock, kPacked ? d_scores_packed : d_scores + query,
             buffers.d_q_transposed.data() + query * width + column * kBlock);
  }
}

// to [count][d_kv] = the first operand [count][queries from `first` on] times the packed rows.
template <class T>
void store_product(const Head<T>& head, const T* operand, int64_t count, int64_t first, const T* packed, T* to,
                   int64_t row_stride) {
  const int64_t stride = head.queries + kPadding, d_kv = head.arguments.d_kv;
  float* result = head.buffers.result.reserve(kBlock * kBlock);
  for (int64_t column = 0; column < d_kv; column += kBlock) {
    const int64_t columns = std::min(kBlock, head.width - column);
    brgemm(round_up(count, kLanes), columns, head.queries - first, stride, columns, kBlock, /*add=*/false,
           operand + first, packed + column * head.queries + first * columns, result);
    for (int64_t row = 0; row < count; ++row)
      store_scaled(result + row * kBlock, 1.0f, to + row * row_stride + column, std::min(columns, d_kv - column));
  }
}

template <class T>
void store_d_q(const Head<T>& head, T* to, int64_t row_stride) {
  const int64_t query_length = head.arguments.query_length, d_kv = head.arguments.d_kv;
  float* rows = head.buffers.result.reserve(kBlock * kBlock);
  for (int64_t query = 0; query < query_length; query += kBlock)
    for (int64_t column = 0; column < d_kv; column += kBlock) {
      const int64_t columns = std::min(kBlock, head.width - column);
      transpose_words(head.buffers.d_q_transposed.data() + query * head.width + column * kBlock, kBlock, columns,
                      kBlock, rows, kBlock);
      for (int64_t row = 0; row < std::min(kBlock, query_length - query); ++row)
        store_scaled(rows + row * kBlock, 1.0f, to + (query + row) * row_stride + column,
                     std::min(columns, d_kv - column));
    }
}

template <class T>
void backward_head(const Head<T>& head, Rows<const T> out, const float* log2_sum_exp, Rows<const T> d_out, Rows<T> d_q,
                   Rows<T> d_k, Rows<T> d_v, float* d_bias) {
  const auto& [arguments, batch, index, queries, width, buffers] = head;
  const int64_t query_length = arguments.query_length, key_length = arguments.key_length, d_kv = arguments.d_kv;
  const int64_t distances = query_length + key_length - 1;
  T* d_q_rows = head_rows(d_q, batch, index, d_kv);
  T* d_k_rows = head_rows(d_k, batch, index, d_kv);
  T* d_v_rows = head_rows(d_v, batch, index, d_kv);

  pack_queries(head, out, d_out, log2_sum_exp);
  // Where (key, query) is at key_length - 1 - key + query.
  const float* bias = distance_terms(arguments, index, /*descending=*/true, buffers.bias);
  float* d_bias_sums = nullptr;
  if (d_bias != nullptr) {
    d_bias_sums = buffers.d_bias.reserve(distances + 2 * kBlock) + kBlock;
    std::fill(d_bias_sums - kBlock, d_bias_sums + distances + kBlock, 0.0f);
  }
  float* hidden = buffers.hidden.reserve(queries);
  std::fill(hidden, hidden + queries, kHidden);
  buffers.d_q_transposed.reserve(queries * width);

  const int64_t num_keys = used_keys(arguments, batch);
  for (int64_t key = 0; key < num_keys; key += kBlock) {
    const int64_t count = std::min(kBlock, num_keys - key);
    // The first panel of queries that see any key of the block.
    const int64_t first = arguments.causal ? std::max<int64_t>(0, key - arguments.query_offset) / kBlock * kBlock : 0;
    if (first < queries) {
      differentiate_keys(head, key, count, first, bias, d_bias_sums);
      store_product(head, buffers.probabilities.data(), count, first, buffers.d_out_packed.data(),
                    d_v_rows + key * d_v.row_stride, d_v.row_stride);
      store_product(head, buffers.d_scores.data(), count, first, buffers.q_packed.data(),
                    d_k_rows + key * d_k.row_stride, d_k.row_stride);
    } else {
      zero_rows(d_v_rows + key * d_v.row_stride, d_v.row_stride, count, d_kv);
      zero_rows(d_k_rows + key * d_k.row_stride, d_k.row_stride, count, d_kv);
    }
  }
  zero_rows(d_v_rows + num_keys * d_v.row_stride, d_v.row_stride, key_length - num_keys, d_kv);
  zero_rows(d_k_rows + num_keys * d_k.row_stride, d_k.row_stride, key_length - num_keys, d_kv);
  if (num_keys > 0)
    store_d_q(head, d_q_rows, d_q.row_stride);
  else
    zero_rows(d_q_rows, d_q.row_stride, query_length, d_kv);
  if (d_bias != nullptr) std::reverse_copy(d_bias_sums, d_bias_sums + distances, d_bias);
}

template <class T>
Head<T> head_of(const AttentionArguments<T>& arguments, int64_t batch, int64_t index, BackwardBuffers<T>& buffers) {
  return {.arguments = arguments,
          .batch = batch,
          .index = index,
          .queries = round_up(arguments.query_length, kBlock),
          .width = round_up(arguments.d_kv, 32),
          .buffers = buffers};
}

// The runs of a (batch, head), in order; what they give to the bias adds up.
template <class T>
void backward_runs(const AttentionArguments<T>& arguments, int64_t batch, int64_t head, Rows<const T> out,
                   const float* log2_sum_exp, Rows<const T> d_out, Rows<T> d_q, Rows<T> d_k, Rows<T> d_v, float* d_bias,
                   BackwardBuffers<T>& buffers) {
  const int64_t d_kv = arguments.d_kv;
  if (d_bias != nullptr) std::fill_n(d_bias, arguments.query_length + arguments.key_length - 1, 0.0f);
  for (int64_t n = arguments.first_run[batch]; n < arguments.first_run[batch + 1]; ++n) {
    const auto& run = arguments.runs[n];
    const auto own = arguments_of(arguments, batch, head, run);
    const int64_t distances = run.num_queries + run.num_keys - 1;
    float* own_d_bias = d_bias == nullptr ? nullptr : buffers.run_d_bias.reserve(distances);
    const auto queries_of = [&](const auto& rows) { return part_of(rows, batch, head, d_kv, run.first_query); };
    const auto keys_of = [&](const auto& rows) { return part_of(rows, batch, head, d_kv, run.first_key); };
    backward_head(head_of(own, 0, 0, buffers), queries_of(out), log2_sum_exp + run.first_query, queries_of(d_out),
                  queries_of(d_q), keys_of(d_k), keys_of(d_v), own_d_bias);
    for (int64_t entry = 0; own_d_bias != nullptr && entry < distances; ++entry)
      d_bias[first_distance(arguments, run) + entry] += own_d_bias[entry];
  }
}

}  // namespace

template <class T>
void attention_backward(const AttentionArguments<T>& arguments, Rows<const T> out, const float* log2_sum_exp,
                        Rows<const T> d_out, Rows<T> d_q, Rows<T> d_k, Rows<T> d_v, float* d_bias) {
  const int64_t items = arguments.batch * arguments.num_heads;
  const int64_t distances = arguments.query_length + arguments.key_length - 1;
  RegionErrors errors;
#pragma omp parallel if (worth_threads(arguments))
  {
    static thread_local BackwardBuffers<T> buffers;
#pragma omp for schedule(dynamic, 1)
    for (int64_t item = 0; item < items; ++item)
      errors.run([&] {
        const int64_t batch = item / arguments.num_heads, head = item % arguments.num_heads;
        const float* sums = log2_sum_exp + item * arguments.query_length;
        float* own_d_bias = d_bias == nullptr ? nullptr : d_bias + item * distances;
        if (arguments.runs == nullptr)
          backward_head(head_of(arguments, batch, head, buffers), out, sums, d_out, d_q, d_k, d_v, own_d_bias);
        else
          backward_runs(arguments, batch, head, out, sums, d_out, d_q, d_k, d_v, own_d_bias, buffers);
      });
    brgemm_release();
  }
  errors.rethrow();
}

template void attention_backward(const AttentionArguments<float>&, Rows<const float>, const float*, Rows<const float>,
                                 Rows<float>, Rows<float>, Rows<float>, float*);
template void attention_backward(const AttentionArguments<BFloat16>&, Rows<const BFloat16>, const float*,
                                 Rows<const BFloat16>, Rows<BFloat16>, Rows<BFloat16>, Rows<BFloat16>, float*);

}  // namespace switchyard::kernels
