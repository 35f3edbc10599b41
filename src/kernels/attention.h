// T5 attention on the CPU, one (batch, head) at a time: scores and probabilities exist for one block of rows only.
//
//   s[i][j] = q[i] . k[j] + bias[j - i + query_length - 1],  out[i] = sum_j softmax_j(s[i])[j] v[j]
//
// The scores are not scaled (T5 §2.1). Sums and softmax in f32; for bf16 the probabilities are rounded to bf16 before
// they meet v, as in the composition. A (batch, head) is computed by one thread in one order, so results depend neither
// on the number of threads nor on the rest of the batch.
//
// Not here: an online softmax, which rescales as it goes. Exponents have range to spare: a row's scores are shifted by
// the maximum of its first 64 keys, and only if a later score is larger by 2^70 is the block of rows made again with
// the true one.
#pragma once

#include <cstdint>

#include "kernels/bfloat16.h"

namespace switchyard::kernels {

// A [batch, length, heads * d_kv] array; strides in elements, the last axis contiguous.
template <class T>
struct Rows {
  T* data = nullptr;
  int64_t batch_stride = 0;
  int64_t row_stride = 0;
};

// A packed row holds several examples one behind the other: this stretch of its queries sees this stretch of its keys.
struct AttentionRun {
  int64_t first_query = 0, num_queries = 0;
  int64_t first_key = 0, num_keys = 0;
};

template <class T>
struct AttentionArguments {
  int64_t batch = 0, num_heads = 0, query_length = 0, key_length = 0, d_kv = 0;
  bool causal = false;  // query i sees key j if j <= i + query_offset
  int64_t query_offset = 0;
  Rows<const T> q, k, v;
  const float* bias = nullptr;     // [num_heads, query_length + key_length - 1], or null: no bias
  const bool* key_mask = nullptr;  // [batch, key_length], or null; false: never attended
  // Row b's runs are runs[first_run[b]] to runs[first_run[b + 1] - 1]; null: a row is one run. With runs there is no
  // key_mask, a run has a query, and in causal attention its first query sees its first key.
  const AttentionRun* runs = nullptr;
  const int64_t* first_run = nullptr;  // [batch + 1]
};

// log2_sum_exp [batch, num_heads, query_length]: log2 of the sum over the seen keys of 2^(s log2 e); 1e30 for a query
// that sees no key, whose output is 0. May be null. Queries outside of every run are left as they are, in both. A run's
// results are to the bit those of its queries and keys in a row of their own. Instantiated for float and BFloat16.
template <class T>
void attention_forward(const AttentionArguments<T>& arguments, Rows<T> out, float* log2_sum_exp);

// Where the keys of each batch row lie, and how many it has: decoding over a cache of slots, whose rows have lengths of
// their own and may share keys. Null: row n has slot n, and key_length keys.
struct CachedKeys {
  const int64_t* slot = nullptr;      // [batch]: place along the first axis of k, v and key_mask
  const int64_t* num_keys = nullptr;  // [batch], at most key_length
};

// The same for few queries (decoding): reads k and v in place, nothing is packed and no brgemm kernel is generated, so
// key_length may grow from call to call. Probabilities stay in f32. Each row's last query stands at its last key: with
// num_keys, the row's keys are the last num_keys of the bias's key_length, and query_offset is num_keys - query_length.
template <class T>
void attention_decode(const AttentionArguments<T>& arguments, Rows<T> out, const CachedKeys& keys = {});

// A thread's part of it: heads [first, last) of row `row`.
template <class T>
void attention_decode_heads(const AttentionArguments<T>& arguments, Rows<T> out, const CachedKeys& keys, int64_t row,
                            int64_t first, int64_t last);

// Gradients from out and log2_sum_exp of attention_forward. d_bias [batch, num_heads, query_length + key_length - 1]
// gets each (batch, head)'s own share, to be summed over the batch by the caller; null: not wanted. d_q, d_k, d_v are
// overwritten, but for what is outside of every run.
template <class T>
void attention_backward(const AttentionArguments<T>& arguments, Rows<const T> out, const float* log2_sum_exp,
                        Rows<const T> d_out, Rows<T> d_q, Rows<T> d_k, Rows<T> d_v, float* d_bias);

}  // namespace switchyard::kernels
