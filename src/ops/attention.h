// T5 attention: softmax(q k^T + position_bias) v, scores not scaled, softmax in f32.
//
// The bias is a table over distances rather than a [heads, n, n] tensor: T5's bias depends on key - query only. No
// [heads, n, n] tensor is kept for the backward pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace switchyard::ops {

// Of packed rows, several examples one behind the other: which of its row's examples a position belongs to, counted
// from 1 along the row, 0 for padding. A query sees the keys of its own example.
struct AttentionSegments {
  at::Tensor query = {};  // [batch, query_length] i64
  at::Tensor key = {};    // [batch, key_length] i64
};

struct AttentionOptions {
  int64_t num_heads = 1;
  bool causal = false;              // query i sees keys up to query_offset + i
  int64_t query_offset = 0;         // position of the first query among the keys: > 0 when decoding with a cache
  AttentionSegments segments = {};  // undefined: a row is one example
};

// q [batch, query_length, heads * d_kv], k and v [batch, key_length, heads * d_kv], all of one dtype; rows may be
// strided, the last axis contiguous. Result: same shape and dtype as q. bias_by_distance [heads, query_length +
// key_length - 1] f32 or undefined: what entry key - query + query_length - 1 holds is
//   added to that score, query and key counted from 0 in their tensors (so the entry's distance between positions is
//   key - query - query_offset, and with query_offset 0 the entry query_length - 1 is distance 0). Differentiable.
// key_mask [batch, key_length] bool or undefined: false keys are never attended. A query with no key left gives 0.
// Differentiable in q, k, v and bias. f64 and devices other than CPU take the reference path. Throws Error on other
// shapes, and where segments do not lie one behind the other or stand beside a key_mask. An example's result does not
// depend on the rest of the batch, nor in the kernels on whether it is packed; without gradients up to four queries
// take a kernel of their own, which adds in another order than that of more.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& bias_by_distance,
                     const at::Tensor& key_mask, const AttentionOptions& options);

// Which keys each row of q has in a cache.
struct CachedKeys {
  std::vector<int64_t> slot;      // [rows]: where they lie along the first axis of k and v; rows may share a slot
  std::vector<int64_t> num_keys;  // [rows]: the first so many positions of the slot, 1 to key_length
};

// attention() of decoding over a cache of slots, for rows of different lengths; without gradient. k and v [slots,
// key_length, heads * d_kv], key_mask [slots, key_length]; the last query of a row stands at the row's last key, so
// options.query_offset is key_length - query_length: that of the longest row, whose bias_by_distance the others share.
// A row's result does not depend on the other rows. Throws Error on other shapes, slots and numbers.
at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const at::Tensor& bias_by_distance, const at::Tensor& key_mask, const CachedKeys& keys,
                            const AttentionOptions& options);

// The bucket of a relative position key - query (T5 §2.1; Mesh and HF agree for every integer).
int64_t relative_position_bucket(int64_t relative_position, bool bidirectional, int64_t num_buckets,
                                 int64_t max_distance);

struct RelativeBiasOptions {
  int64_t query_length, key_length;
  int64_t query_offset = 0;
  bool bidirectional = true;
  int64_t num_buckets = 32, max_distance = 128;
};

// The distance table that attention() takes: [heads, query_length + key_length - 1] f32 (f64 if weight is), gathered
// from weight [num_buckets, heads]. Differentiable.
at::Tensor relative_bias_by_distance(const at::Tensor& weight, const RelativeBiasOptions& options);

}  // namespace switchyard::ops
