#include <cmath>

#include "kernels/attention.h"
#include "kernels/attention_pieces.h"

namespace switchyard::kernels {
namespace {

// One query of one head. scores: scratch [key_length]; sum: scratch [d_kv].
template <class T>
void decode_query(const AttentionArguments<T>& arguments, int64_t batch, int64_t head, int64_t query, Rows<T> out, float* scores,
                  float* sum) {
  const int64_t d_kv = arguments.d_kv;
  const int64_t num_keys = arguments.causal ? std::min(arguments.key_length, query + arguments.query_offset + 1) : arguments.key_length;
  const int64_t distances = arguments.query_length + arguments.key_length - 1;
  const T* q = head_rows(arguments.q, batch, head, d_kv) + query * arguments.q.row_stride;
  const T* k = head_rows(arguments.k, batch, head, d_kv);
  const T* v = head_rows(arguments.v, batch, head, d_kv);
  const bool* mask = arguments.key_mask == nullptr ? nullptr : arguments.key_mask + batch * arguments.key_length;
  const float* bias = arguments.bias == nullptr ? nullptr : arguments.bias + head * distances + arguments.query_length - 1 - query;

  float maximum = -1e30f;  // finite, for a query that sees no key
  for (int64_t key = 0; key < num_keys; ++key) {
    scores[key] = -kInfinity;
    if (mask != nullptr && !mask[key]) continue;
    scores[key] = (dot(q, k + key * arguments.k.row_stride, d_kv) + (bias == nullptr ? 0.0f : bias[key])) * kLog2e;
    maximum = std::max(maximum, scores[key]);
  }
  F32x16 total = splat(0.0f);
  std::fill(scores + num_keys, scores + round_up(num_keys, kLanes), -kInfinity);
  for (int64_t key = 0; key < num_keys; key += kLanes) {
    const F32x16 probability = exp2(load(scores + key) - splat(maximum));
    store(scores + key, probability);
    total = total + probability;
  }
  const float normalizer = reduce_add(total);

  std::fill_n(sum, d_kv, 0.0f);
  for (int64_t key = 0; key < num_keys; ++key) {
    if (scores[key] == 0.0f) continue;
    const T* row = v + key * arguments.v.row_stride;
    const F32x16 probability = splat(scores[key]);
    int64_t i = 0;
    for (; i + kLanes <= d_kv; i += kLanes) store(sum + i, fma(probability, load(row + i), load(sum + i)));
    for (; i < d_kv; ++i) sum[i] += scores[key] * to_float(row[i]);
  }
  store_scaled(sum, normalizer == 0.0f ? 0.0f : 1.0f / normalizer, head_rows(out, batch, head, d_kv) + query * out.row_stride, d_kv);
}

}  // namespace

template <class T>
void attention_decode(const AttentionArguments<T>& arguments, Rows<T> out) {
  const int64_t items = arguments.batch * arguments.num_heads * arguments.query_length;
#pragma omp parallel
  {
    static thread_local Buffer<float> scores_buffer, sum_buffer;
    float* scores = scores_buffer.reserve(round_up(arguments.key_length, kLanes));
    float* sum = sum_buffer.reserve(arguments.d_kv);
#pragma omp for schedule(static)
    for (int64_t item = 0; item < items; ++item) {
      const int64_t row = item / arguments.query_length;
      decode_query(arguments, row / arguments.num_heads, row % arguments.num_heads, item % arguments.query_length, out, scores, sum);
    }
  }
}

template void attention_decode(const AttentionArguments<float>&, Rows<float>);
template void attention_decode(const AttentionArguments<BFloat16>&, Rows<BFloat16>);

}  // namespace switchyard::kernels
