#include "ops/attention_reference.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>

#include <limits>

namespace switchyard::ops::reference {

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& bias_by_distance,
                     const at::Tensor& key_mask, const AttentionOptions& options) {
  const int64_t query_length = q.size(1), key_length = k.size(1), d_kv = q.size(2) / options.num_heads;
  const auto split_heads = [&](const at::Tensor& x) {  // [batch, length, heads * d_kv] to [batch, heads, length, d_kv]
    return x.unflatten(2, {options.num_heads, d_kv}).transpose(1, 2);
  };
  // Scores and softmax in f32 (Switch §2.4); the probabilities meet v in the compute dtype.
  const auto score_dtype = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  auto scores = at::matmul(split_heads(q).to(score_dtype), split_heads(k).to(score_dtype).transpose(2, 3));
  if (bias_by_distance.defined()) {
    // Row `query` of the bias is the window of the table that begins at query_length - 1 - query.
    scores = scores + bias_by_distance.to(score_dtype).unfold(1, key_length, 1).flip(1);
  }

  at::Tensor hidden;  // true: this query does not see this key
  if (key_mask.defined()) hidden = key_mask.logical_not().unflatten(0, {-1, 1, 1});  // [batch, 1, 1, key_length]
  const auto& [query_segment, key_segment] = options.segments;
  if (query_segment.defined()) {  // [batch, 1, query_length, key_length]
    const auto other =
        query_segment.unsqueeze(2).ne(key_segment.unsqueeze(1)).logical_or(key_segment.eq(0).unsqueeze(1));
    hidden = hidden.defined() ? hidden.logical_or(other.unsqueeze(1)) : other.unsqueeze(1);
  }
  if (options.causal) {
    const auto position = at::arange(query_length, q.options().dtype(at::kLong)) + options.query_offset;
    const auto future = at::arange(key_length, q.options().dtype(at::kLong)) > position.unsqueeze(1);
    hidden = hidden.defined() ? hidden.logical_or(future) : future;
  }
  if (!hidden.defined())
    return at::matmul(at::softmax(scores, -1).to(q.scalar_type()), split_heads(v)).transpose(1, 2).flatten(2);

  // A query that sees no key keeps finite scores, so that its gradients are 0 and not NaN; its probabilities are erased
  // after.
  const auto sees_some_key = hidden.logical_not().any(-1, /*keepdim=*/true);
  scores = scores.masked_fill(hidden.logical_and(sees_some_key), -std::numeric_limits<double>::infinity());
  const auto probabilities = at::softmax(scores, -1).masked_fill(hidden, 0.0);
  return at::matmul(probabilities.to(q.scalar_type()), split_heads(v)).transpose(1, 2).flatten(2);
}

// Row by row, each with its own keys and the end of the longest row's table.
at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const at::Tensor& bias_by_distance, const at::Tensor& key_mask, const CachedKeys& keys,
                            const AttentionOptions& options) {
  std::vector<at::Tensor> rows;
  for (int64_t row = 0; row < q.size(0); ++row) {
    const int64_t slot = keys.slot[static_cast<size_t>(row)], num_keys = keys.num_keys[static_cast<size_t>(row)];
    const auto own = [&](const at::Tensor& x) { return x.slice(0, slot, slot + 1).slice(1, 0, num_keys); };
    auto own_options = options;
    own_options.query_offset = num_keys - q.size(1);
    rows.push_back(reference::attention(
        q.slice(0, row, row + 1), own(k), own(v),
        bias_by_distance.defined() ? bias_by_distance.slice(1, k.size(1) - num_keys) : at::Tensor(),
        key_mask.defined() ? own(key_mask) : at::Tensor(), own_options));
  }
  return at::cat(rows);
}

}  // namespace switchyard::ops::reference
