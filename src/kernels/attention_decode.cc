#include <omp.h>

#include "kernels/attention.h"
#include "kernels/attention_pieces.h"

namespace switchyard::kernels {
namespace {

struct DecodeBuffers {
  Buffer<float> q;       // [queries][heads][d_kv]
  Buffer<float> scores;  // [queries][heads][keys], then the probabilities
  Buffer<float> sums;    // [queries][heads][d_kv]
};

// All queries of one example and of heads [first_head, first_head + num_heads). The cost is reading k and v, so the
// keys are the outer loop: memory is read in the order in which it lies.
template <class T>
void decode_heads(const AttentionArguments<T>& arguments, const CachedKeys& cached, int64_t batch, int64_t first_head,
                  int64_t num_heads, Rows<T> out, DecodeBuffers& buffers) {
  const int64_t slot = cached.slot == nullptr ? batch : cached.slot[batch];
  // Keys of the bias's key_length that this row does not have: its distances begin that much later.
  const int64_t missing = cached.num_keys == nullptr ? 0 : arguments.key_length - cached.num_keys[batch];
  const int64_t d_kv = arguments.d_kv, queries = arguments.query_length, width = round_up(d_kv, kLanes);
  const int64_t num_keys = std::min({used_keys(arguments, slot), arguments.key_length - missing,
                                     arguments.causal ? queries + arguments.query_offset : arguments.key_length});
  const int64_t keys = round_up(num_keys, kLanes);
  const int64_t whole = d_kv / kLanes * kLanes;
  const bool* mask = arguments.key_mask == nullptr ? nullptr : arguments.key_mask + slot * arguments.key_length;

  float* q = buffers.q.reserve(queries * num_heads * width);
  float* scores = buffers.scores.reserve(queries * num_heads * keys);
  float* sums = buffers.sums.reserve(queries * num_heads * width);
  for (int64_t query = 0; query < queries; ++query)
    for (int64_t head = 0; head < num_heads; ++head) {
      const T* from = head_rows(arguments.q, batch, first_head + head, d_kv) + query * arguments.q.row_stride;
      for (int64_t i = 0; i < d_kv; ++i) q[(query * num_heads + head) * width + i] = to_float(from[i]);
    }

  std::fill(scores, scores + queries * num_heads * keys, kHidden);
  for (int64_t key = 0; key < num_keys; ++key) {
    if (mask != nullptr && !mask[key]) continue;
    const T* row = head_rows(arguments.k, slot, first_head, d_kv) + key * arguments.k.row_stride;
    for (int64_t query = 0; query < queries; ++query)
      for (int64_t head = 0; head < num_heads; ++head) {
        const float* q_row = q + (query * num_heads + head) * width;
        const T* k_row = row + head * d_kv;
        F32x16 sum = splat(0.0f);
        float rest = 0.0f;
        for (int64_t i = 0; i < whole; i += kLanes) sum = fma(load(q_row + i), load(k_row + i), sum);
        for (int64_t i = whole; i < d_kv; ++i) rest += q_row[i] * to_float(k_row[i]);
        const float term = distance_term(arguments, first_head + head, key + missing - query + queries - 1);
        scores[(query * num_heads + head) * keys + key] = (reduce_add(sum) + rest) * kLog2e + term;
      }
  }

  for (int64_t row = 0; row < queries * num_heads; ++row) {
    F32x16 maximum = splat(kUnseen), total = splat(0.0f);
    for (int64_t key = 0; key < keys; key += kLanes) maximum = max(load(scores + row * keys + key), maximum);
    const F32x16 shift = splat(reduce_max(maximum));
    for (int64_t key = 0; key < keys; key += kLanes) {
      const F32x16 exponential = exp2_finite(load(scores + row * keys + key) - shift);
      store(scores + row * keys + key, exponential);
      total = total + exponential;
    }
    const float sum = reduce_add(total);
    const F32x16 factor = splat(sum == 0.0f ? 0.0f : 1.0f / sum);
    for (int64_t key = 0; key < keys; key += kLanes)
      store(scores + row * keys + key, load(scores + row * keys + key) * factor);
  }

  std::fill(sums, sums + queries * num_heads * width, 0.0f);
  for (int64_t key = 0; key < num_keys; ++key) {
    if (mask != nullptr && !mask[key]) continue;
    const T* row = head_rows(arguments.v, slot, first_head, d_kv) + key * arguments.v.row_stride;
    for (int64_t query = 0; query < queries; ++query)
      for (int64_t head = 0; head < num_heads; ++head) {
        const float probability = scores[(query * num_heads + head) * keys + key];
        if (probability == 0.0f) continue;
        float* sum = sums + (query * num_heads + head) * width;
        const T* v_row = row + head * d_kv;
        const F32x16 factor = splat(probability);
        for (int64_t i = 0; i < whole; i += kLanes) store(sum + i, fma(factor, load(v_row + i), load(sum + i)));
        for (int64_t i = whole; i < d_kv; ++i) sum[i] += probability * to_float(v_row[i]);
      }
  }
  for (int64_t query = 0; query < queries; ++query)
    for (int64_t head = 0; head < num_heads; ++head)
      store_scaled(sums + (query * num_heads + head) * width, 1.0f,
                   head_rows(out, batch, first_head + head, d_kv) + query * out.row_stride, d_kv);
}

}  // namespace

template <class T>
void attention_decode(const AttentionArguments<T>& arguments, Rows<T> out, const CachedKeys& keys) {
  // As few groups of heads as keep every thread at work; a head's result does not depend on its group.
  const int64_t groups = std::min(arguments.num_heads, (omp_get_max_threads() + arguments.batch - 1) / arguments.batch);
#pragma omp parallel if (worth_threads(arguments))
  {
    static thread_local DecodeBuffers buffers;
#pragma omp for schedule(static)
    for (int64_t item = 0; item < arguments.batch * groups; ++item) {
      const int64_t first_head = item % groups * arguments.num_heads / groups;
      const int64_t end_head = (item % groups + 1) * arguments.num_heads / groups;
      decode_heads(arguments, keys, item / groups, first_head, end_head - first_head, out, buffers);
    }
  }
}

template void attention_decode(const AttentionArguments<float>&, Rows<float>, const CachedKeys&);
template void attention_decode(const AttentionArguments<BFloat16>&, Rows<BFloat16>, const CachedKeys&);

}  // namespace switchyard::kernels
