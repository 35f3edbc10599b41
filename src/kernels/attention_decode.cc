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

// All queries of one example and of heads first .. first + heads, and the padded sizes. The cost is reading k and v, so
// the keys are the outer loop: memory is read in the order in which it lies.
template <class T>
struct Heads {
  const AttentionArguments<T>& arguments;
  int64_t batch, slot;  // its place in q, and in k, v and key_mask
  int64_t first, heads;
  int64_t num_keys, keys, width;
  int64_t missing;  // keys of the bias's key_length that this row does not have: its distances begin that much later
  DecodeBuffers& buffers;

  int64_t rows() const { return arguments.query_length * heads; }  // row query * heads + head
  bool sees(int64_t key) const {
    return arguments.key_mask == nullptr || arguments.key_mask[slot * arguments.key_length + key];
  }
};

// Keys whose values are mixed head by head, and by which memory is asked for before it is read: a thread's heads are a
// part of each row, which the processor's prefetcher does not foresee.
constexpr int64_t kKeysAhead = 16;

template <class T>
void prefetch(const T* from, int64_t count) {
  for (int64_t i = 0; i < count; i += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(from + i, 0, 3);
}

template <class T>
void copy_queries(const Heads<T>& part) {
  const int64_t d_kv = part.arguments.d_kv;
  float* q = part.buffers.q.reserve(part.rows() * part.width);
  for (int64_t query = 0; query < part.arguments.query_length; ++query)
    for (int64_t head = 0; head < part.heads; ++head) {
      const T* from =
          head_rows(part.arguments.q, part.batch, part.first + head, d_kv) + query * part.arguments.q.row_stride;
      for (int64_t i = 0; i < d_kv; ++i) q[(query * part.heads + head) * part.width + i] = to_float(from[i]);
    }
}

// In units of log2.
template <class T>
void make_scores(const Heads<T>& part, float* scores) {
  const auto& arguments = part.arguments;
  const int64_t d_kv = arguments.d_kv, queries = arguments.query_length, whole = d_kv / kLanes * kLanes;
  const float* q = part.buffers.q.data();
  std::fill(scores, scores + part.rows() * part.keys, kHidden);
  for (int64_t key = 0; key < part.num_keys; ++key) {
    if (!part.sees(key)) continue;
    const T* row = head_rows(arguments.k, part.slot, part.first, d_kv) + key * arguments.k.row_stride;
    prefetch(row + kKeysAhead * arguments.k.row_stride, part.heads * d_kv);
    for (int64_t query = 0; query < queries; ++query)
      for (int64_t head = 0; head < part.heads; ++head) {
        const float* q_row = q + (query * part.heads + head) * part.width;
        const T* k_row = row + head * d_kv;
        F32x16 sum = splat(0.0f);
        float rest = 0.0f;
        for (int64_t i = 0; i < whole; i += kLanes) sum = fma(load(q_row + i), load(k_row + i), sum);
        for (int64_t i = whole; i < d_kv; ++i) rest += q_row[i] * to_float(k_row[i]);
        const float term = distance_term(arguments, part.first + head, key + part.missing - query + queries - 1);
        scores[(query * part.heads + head) * part.keys + key] = (reduce_add(sum) + rest) * kLog2e + term;
      }
  }
}

// Scores [keys] to probabilities, all 0 where no key is seen.
inline void normalise(float* scores, int64_t keys) {
  F32x16 maximum = splat(kUnseen), total = splat(0.0f);
  for (int64_t key = 0; key < keys; key += kLanes) maximum = max(load(scores + key), maximum);
  const F32x16 shift = splat(reduce_max(maximum));
  for (int64_t key = 0; key < keys; key += kLanes) {
    const F32x16 exponential = exp2_finite(load(scores + key) - shift);
    store(scores + key, exponential);
    total = total + exponential;
  }
  const float sum = reduce_add(total);
  const F32x16 factor = splat(sum == 0.0f ? 0.0f : 1.0f / sum);
  for (int64_t key = 0; key < keys; key += kLanes) store(scores + key, load(scores + key) * factor);
}

// Adds keys [first, end) to kCount vectors of a head's sum.
template <int kCount, class T>
void mix_lanes(const float* probability, int64_t first, int64_t end, const T* values, int64_t stride, float* sum) {
  F32x16 total[kCount];
  for (int n = 0; n < kCount; ++n) total[n] = load(sum + n * kLanes);
  for (int64_t key = first; key < end; ++key) {
    prefetch(values + (key + kKeysAhead) * stride, kCount * kLanes);
    if (probability[key] == 0.0f) continue;
    const F32x16 factor = splat(probability[key]);
    for (int n = 0; n < kCount; ++n) total[n] = fma(factor, load(values + key * stride + n * kLanes), total[n]);
  }
  for (int n = 0; n < kCount; ++n) store(sum + n * kLanes, total[n]);
}

template <class T>
void mix_values(const Heads<T>& part, const float* probabilities, float* sums) {
  const auto& arguments = part.arguments;
  const int64_t d_kv = arguments.d_kv, whole = d_kv / kLanes * kLanes;
  std::fill(sums, sums + part.rows() * part.width, 0.0f);
  // Few keys at a time, whose rows stay in cache for all heads; within them a sum stays in a register.
  for (int64_t first = 0; first < part.num_keys; first += kKeysAhead) {
    const int64_t end = std::min(part.num_keys, first + kKeysAhead);
    for (int64_t query = 0; query < arguments.query_length; ++query)
      for (int64_t head = 0; head < part.heads; ++head) {
        const float* probability = probabilities + (query * part.heads + head) * part.keys;
        float* sum = sums + (query * part.heads + head) * part.width;
        const T* values = head_rows(arguments.v, part.slot, part.first + head, d_kv);
        const int64_t stride = arguments.v.row_stride;
        int64_t i = 0;
        for (; i + 4 * kLanes <= whole; i += 4 * kLanes)
          mix_lanes<4>(probability, first, end, values + i, stride, sum + i);
        for (; i < whole; i += kLanes) mix_lanes<1>(probability, first, end, values + i, stride, sum + i);
        for (; i < d_kv; ++i)
          for (int64_t key = first; key < end; ++key)
            if (probability[key] != 0.0f) sum[i] += probability[key] * to_float(values[key * stride + i]);
      }
  }
}

template <class T>
void decode_heads(const Heads<T>& part, Rows<T> out) {
  copy_queries(part);
  float* scores = part.buffers.scores.reserve(part.rows() * part.keys);
  float* sums = part.buffers.sums.reserve(part.rows() * part.width);
  make_scores(part, scores);
  for (int64_t row = 0; row < part.rows(); ++row) normalise(scores + row * part.keys, part.keys);
  mix_values(part, scores, sums);
  for (int64_t row = 0; row < part.rows(); ++row)
    store_scaled(sums + row * part.width, 1.0f,
                 head_rows(out, part.batch, part.first + row % part.heads, part.arguments.d_kv) +
                     row / part.heads * out.row_stride,
                 part.arguments.d_kv);
}

}  // namespace

template <class T>
void attention_decode_heads(const AttentionArguments<T>& arguments, Rows<T> out, const CachedKeys& keys, int64_t row,
                            int64_t first, int64_t last) {
  static thread_local DecodeBuffers buffers;
  const int64_t slot = keys.slot == nullptr ? row : keys.slot[row];
  const int64_t missing = keys.num_keys == nullptr ? 0 : arguments.key_length - keys.num_keys[row];
  const int64_t seen = arguments.causal ? arguments.query_length + arguments.query_offset : arguments.key_length;
  const int64_t num_keys = std::min({used_keys(arguments, slot), arguments.key_length - missing, seen});
  decode_heads(Heads<T>{.arguments = arguments,
                        .batch = row,
                        .slot = slot,
                        .first = first,
                        .heads = last - first,
                        .num_keys = num_keys,
                        .keys = round_up(num_keys, kLanes),
                        .width = round_up(arguments.d_kv, kLanes),
                        .missing = missing,
                        .buffers = buffers},
               out);
}

template <class T>
void attention_decode(const AttentionArguments<T>& arguments, Rows<T> out, const CachedKeys& keys) {
  // In as few parts as keep every thread at work; a head's result does not depend on its part.
  const int64_t parts = std::min(arguments.num_heads, (omp_get_max_threads() + arguments.batch - 1) / arguments.batch);
  RegionErrors errors;
#pragma omp parallel for schedule(static) if (worth_threads(arguments))
  for (int64_t item = 0; item < arguments.batch * parts; ++item)
    errors.run([&] {
      const int64_t part = item % parts, heads = arguments.num_heads;
      attention_decode_heads(arguments, out, keys, item / parts, part * heads / parts, (part + 1) * heads / parts);
    });
  errors.rethrow();
}

template void attention_decode_heads(const AttentionArguments<float>&, Rows<float>, const CachedKeys&, int64_t, int64_t,
                                     int64_t);
template void attention_decode_heads(const AttentionArguments<BFloat16>&, Rows<BFloat16>, const CachedKeys&, int64_t,
                                     int64_t, int64_t);
template void attention_decode(const AttentionArguments<float>&, Rows<float>, const CachedKeys&);
template void attention_decode(const AttentionArguments<BFloat16>&, Rows<BFloat16>, const CachedKeys&);

}  // namespace switchyard::kernels
