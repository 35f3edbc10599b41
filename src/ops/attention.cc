#include "ops/attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "base/error.h"
#include "kernels/attention.h"
#include "ops/attention_reference.h"
#include "ops/backend.h"

namespace switchyard::ops {
namespace {

// Queries up to which keys and values are read in place instead of being packed.
constexpr int64_t kDecodeQueries = 4;

template <class T>
kernels::Rows<T> rows_of(const at::Tensor& x) {
  return {static_cast<T*>(x.data_ptr()), x.stride(0), x.stride(1)};
}
template <class T>
kernels::Rows<const T> const_rows_of(const at::Tensor& x) {
  return {static_cast<const T*>(x.const_data_ptr()), x.stride(0), x.stride(1)};
}

at::Tensor with_contiguous_rows(const at::Tensor& x) {
  return x.stride(-1) == 1 || x.size(-1) == 1 ? x : x.contiguous();
}

// The runs of packed rows, as the kernels take them.
struct Runs {
  std::vector<kernels::AttentionRun> runs;
  std::vector<int64_t> first_run;  // [batch + 1], empty: rows are not packed
};

struct Stretch {
  int64_t segment, first, size;
};

// The segments of one row, and that they lie one behind the other with padding after the last.
std::vector<Stretch> find_stretches(const int64_t* segment, int64_t length, int64_t row, const char* side) {
  std::vector<Stretch> found;
  for (int64_t first = 0; first < length;) {
    int64_t end = first;
    while (end < length && segment[end] == segment[first]) ++end;
    const int64_t previous = found.empty() ? 0 : found.back().segment;
    SY_CHECK(segment[first] > previous || (segment[first] == 0 && end == length), "attention: ", side, " row ", row,
             " has segment ", segment[first], " at ", first, " behind segment ", previous,
             "; expected rising numbers from 1 and zeros at the end");
    if (segment[first] != 0) found.push_back({segment[first], first, end - first});
    first = end;
  }
  return found;
}

Runs find_runs(const AttentionOptions& options) {
  Runs found;
  if (!options.segments.query.defined()) return found;
  const auto query = options.segments.query.contiguous(), key = options.segments.key.contiguous();
  const int64_t query_length = query.size(1), key_length = key.size(1);
  for (int64_t row = 0; row < query.size(0); ++row) {
    found.first_run.push_back(static_cast<int64_t>(found.runs.size()));
    const auto keys = find_stretches(key.const_data_ptr<int64_t>() + row * key_length, key_length, row, "the keys'");
    for (const auto& [segment, first, size] :
         find_stretches(query.const_data_ptr<int64_t>() + row * query_length, query_length, row, "the queries'")) {
      const auto seen = std::find_if(keys.begin(), keys.end(),
                                     [&segment = segment](const auto& stretch) { return stretch.segment == segment; });
      found.runs.push_back({.first_query = first, .num_queries = size});
      if (seen == keys.end()) continue;
      SY_CHECK(!options.causal || first + options.query_offset >= seen->first, "attention: row ", row, ", segment ",
               segment, " has its queries from ", first, " and its keys from ", seen->first,
               "; causal attention expects its first query to see a key");
      found.runs.back().first_key = seen->first;
      found.runs.back().num_keys = seen->size;
    }
  }
  found.first_run.push_back(static_cast<int64_t>(found.runs.size()));
  return found;
}

// The kernels' view of the arguments. The tensors must outlive it.
template <class T>
kernels::AttentionArguments<T> kernel_arguments(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                const at::Tensor& bias_by_distance, const at::Tensor& key_mask,
                                                const AttentionOptions& options, const Runs& runs = {}) {
  return {.batch = q.size(0),
          .num_heads = options.num_heads,
          .query_length = q.size(1),
          .key_length = k.size(1),
          .d_kv = q.size(2) / options.num_heads,
          .causal = options.causal,
          .query_offset = options.query_offset,
          .q = const_rows_of<T>(q),
          .k = const_rows_of<T>(k),
          .v = const_rows_of<T>(v),
          .bias = bias_by_distance.defined() ? bias_by_distance.const_data_ptr<float>() : nullptr,
          .key_mask = key_mask.defined() ? key_mask.const_data_ptr<bool>() : nullptr,
          .runs = runs.first_run.empty() ? nullptr : runs.runs.data(),
          .first_run = runs.first_run.empty() ? nullptr : runs.first_run.data()};
}

// Of x's sizes; what lies outside of every segment, where kernels write nothing, is 0.
at::Tensor empty_out(const at::Tensor& x, const AttentionOptions& options) {
  return options.segments.query.defined() ? at::zeros(x.sizes(), x.options()) : at::empty(x.sizes(), x.options());
}

class FusedAttention : public torch::autograd::Function<FusedAttention> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const std::optional<at::Tensor>& bias_by_distance,
                            const std::optional<at::Tensor>& key_mask, const AttentionOptions& options) {
    const auto bias = bias_by_distance.value_or(at::Tensor()), mask = key_mask.value_or(at::Tensor());
    auto out = empty_out(q, options);
    const auto runs = find_runs(options);
    const auto log2_sum_exp = at::empty({q.size(0), options.num_heads, q.size(1)}, q.options().dtype(at::kFloat));
    with_kernel_type(q.scalar_type(), [&](auto element) {
      using T = decltype(element);
      kernels::attention_forward(kernel_arguments<T>(q, k, v, bias, mask, options, runs), rows_of<T>(out),
                                 log2_sum_exp.mutable_data_ptr<float>());
    });
    context->save_for_backward({q, k, v, bias, mask, out, log2_sum_exp, options.segments.query, options.segments.key});
    context->saved_data["num_heads"] = options.num_heads;
    context->saved_data["causal"] = options.causal;
    context->saved_data["query_offset"] = options.query_offset;
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& d_outs) {
    const auto saved = context->get_saved_variables();
    const auto &q = saved[0], &k = saved[1], &v = saved[2], &bias = saved[3], &mask = saved[4], &out = saved[5];
    const auto& log2_sum_exp = saved[6];
    const AttentionOptions options{.num_heads = context->saved_data["num_heads"].toInt(),
                                   .causal = context->saved_data["causal"].toBool(),
                                   .query_offset = context->saved_data["query_offset"].toInt(),
                                   .segments = {saved[7], saved[8]}};
    const auto d_out = with_contiguous_rows(d_outs[0]);
    const auto d_q = empty_out(q, options), d_k = empty_out(k, options), d_v = empty_out(v, options);
    const auto runs = find_runs(options);
    at::Tensor d_bias_by_head;  // [batch, heads, distances] f32
    if (bias.defined() && context->needs_input_grad(3))
      d_bias_by_head = at::empty({q.size(0), options.num_heads, bias.size(1)}, bias.options());
    with_kernel_type(q.scalar_type(), [&](auto element) {
      using T = decltype(element);
      kernels::attention_backward(kernel_arguments<T>(q, k, v, bias, mask, options, runs), const_rows_of<T>(out),
                                  log2_sum_exp.const_data_ptr<float>(), const_rows_of<T>(d_out), rows_of<T>(d_q),
                                  rows_of<T>(d_k), rows_of<T>(d_v),
                                  d_bias_by_head.defined() ? d_bias_by_head.mutable_data_ptr<float>() : nullptr);
    });
    // ATen sums over the batch in an order that depends on the sizes only.
    return {d_q, d_k, d_v, d_bias_by_head.defined() ? d_bias_by_head.sum(0) : at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

void check_arguments(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& bias_by_distance,
                     const at::Tensor& key_mask, const AttentionOptions& options) {
  SY_CHECK(q.dim() == 3 && k.dim() == 3 && k.size(0) == q.size(0) && k.size(2) == q.size(2) && v.sizes() == k.sizes(),
           "attention: q ", q.sizes(), ", k ", k.sizes(), ", v ", v.sizes(),
           "; expected [batch, query_length, heads * d_kv] and twice [batch, key_length, heads * d_kv]");
  SY_CHECK(options.num_heads > 0 && q.size(2) % options.num_heads == 0 && options.query_offset >= 0,
           "attention: ", options.num_heads, " heads for ", q.size(2), " channels and query_offset ",
           options.query_offset, "; expected a divisor of the channels and an offset of at least 0");
  SY_CHECK(k.scalar_type() == q.scalar_type() && v.scalar_type() == q.scalar_type(), "attention: q is ", q.toString(),
           ", k ", k.toString(), ", v ", v.toString(), "; expected one dtype");
  if (bias_by_distance.defined())
    SY_CHECK(bias_by_distance.dim() == 2 && bias_by_distance.size(0) == options.num_heads &&
                 bias_by_distance.size(1) == q.size(1) + k.size(1) - 1 &&
                 (bias_by_distance.scalar_type() == at::kFloat || bias_by_distance.scalar_type() == at::kDouble),
             "attention: bias_by_distance ", bias_by_distance.sizes(), " ", bias_by_distance.toString(), "; expected [",
             options.num_heads, ", ", q.size(1) + k.size(1) - 1,
             "] (heads, query_length + key_length - 1) in f32 or f64");
  if (key_mask.defined())
    SY_CHECK(key_mask.dim() == 2 && key_mask.size(0) == k.size(0) && key_mask.size(1) == k.size(1) &&
                 key_mask.scalar_type() == at::kBool,
             "attention: key_mask ", key_mask.sizes(), " ", key_mask.toString(), "; expected [batch, key_length] = [",
             k.size(0), ", ", k.size(1), "] bool");
  const auto& [query_segment, key_segment] = options.segments;
  const auto fits = [](const at::Tensor& segment, const at::Tensor& rows) {
    return segment.defined() && segment.dim() == 2 && segment.size(0) == rows.size(0) &&
           segment.size(1) == rows.size(1) && segment.scalar_type() == at::kLong;
  };
  if (query_segment.defined() || key_segment.defined())
    SY_CHECK(fits(query_segment, q) && fits(key_segment, k) && !key_mask.defined(),
             "attention: expected int64 segments [", q.size(0), ", ", q.size(1), "] of queries and [", k.size(0), ", ",
             k.size(1), "] of keys, and no key_mask beside them");
}

}  // namespace

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& bias_by_distance,
                     const at::Tensor& key_mask, const AttentionOptions& options) {
  check_arguments(q, k, v, bias_by_distance, key_mask, options);
  if (!is_fused(q, Kernel::kTiles) || q.numel() == 0 || k.numel() == 0)
    return reference::attention(q, k, v, bias_by_distance, key_mask, options);

  const auto q_rows = with_contiguous_rows(q), k_rows = with_contiguous_rows(k), v_rows = with_contiguous_rows(v);
  const auto bias = bias_by_distance.defined() ? bias_by_distance.to(at::kFloat).contiguous() : at::Tensor();
  const auto mask = key_mask.defined() ? key_mask.contiguous() : at::Tensor();
  const bool differentiates =
      at::GradMode::is_enabled() &&
      (q.requires_grad() || k.requires_grad() || v.requires_grad() || (bias.defined() && bias.requires_grad()));
  if (differentiates) {
    const auto optional = [](const at::Tensor& x) { return x.defined() ? std::optional(x) : std::nullopt; };
    return FusedAttention::apply(q_rows, k_rows, v_rows, optional(bias), optional(mask), options);
  }
  auto out = empty_out(q, options);
  const auto runs = find_runs(options);
  with_kernel_type(q.scalar_type(), [&](auto element) {
    using T = decltype(element);
    const auto arguments = kernel_arguments<T>(q_rows, k_rows, v_rows, bias, mask, options, runs);
    if (arguments.query_length <= kDecodeQueries && arguments.runs == nullptr)
      kernels::attention_decode(arguments, rows_of<T>(out));
    else
      kernels::attention_forward(arguments, rows_of<T>(out), nullptr);
  });
  return out;
}

at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const at::Tensor& bias_by_distance, const at::Tensor& key_mask, const CachedKeys& keys,
                            const AttentionOptions& options) {
  SY_CHECK(q.dim() == 3 && k.dim() == 3 && static_cast<int64_t>(keys.slot.size()) == q.size(0) &&
               keys.num_keys.size() == keys.slot.size(),
           "attention over a cache: q ", q.sizes(), ", k ", k.sizes(), ", ", keys.slot.size(), " slots and ",
           keys.num_keys.size(), " numbers of keys; expected one of each for every row of q");
  for (size_t row = 0; row < keys.slot.size(); ++row)
    SY_CHECK(keys.slot[row] >= 0 && keys.slot[row] < k.size(0) && keys.num_keys[row] <= k.size(1) &&
                 keys.num_keys[row] >= (options.causal ? q.size(1) : 1),
             "attention over a cache, row ", row, ": ", keys.num_keys[row], " keys of slot ", keys.slot[row], " for ",
             q.size(1), " queries; the cache has ", k.size(0), " slots of ", k.size(1));
  SY_CHECK(!options.causal || options.query_offset == k.size(1) - q.size(1), "attention over a cache: query_offset ",
           options.query_offset, "; expected key_length - query_length = ", k.size(1) - q.size(1));
  // One row stands for all: shapes and dtypes are those of attention().
  if (q.size(0) == 0) return at::empty(q.sizes(), q.options());
  check_arguments(q.slice(0, 0, 1), k.slice(0, 0, 1), v.slice(0, 0, 1), bias_by_distance,
                  key_mask.defined() ? key_mask.slice(0, 0, 1) : key_mask, options);
  SY_CHECK(v.sizes() == k.sizes() && (!key_mask.defined() || key_mask.size(0) == k.size(0)),
           "attention over a cache: k ", k.sizes(), ", v ", v.sizes(), "; expected the same slots in all of them");
  if (!is_fused(q)) return reference::cached_attention(q, k, v, bias_by_distance, key_mask, keys, options);

  const auto q_rows = with_contiguous_rows(q), k_rows = with_contiguous_rows(k), v_rows = with_contiguous_rows(v);
  const auto bias = bias_by_distance.defined() ? bias_by_distance.to(at::kFloat).contiguous() : at::Tensor();
  const auto mask = key_mask.defined() ? key_mask.contiguous() : at::Tensor();
  auto out = at::empty(q.sizes(), q.options());
  with_kernel_type(q.scalar_type(), [&](auto element) {
    using T = decltype(element);
    kernels::attention_decode(kernel_arguments<T>(q_rows, k_rows, v_rows, bias, mask, options), rows_of<T>(out),
                              {keys.slot.data(), keys.num_keys.data()});
  });
  return out;
}

int64_t relative_position_bucket(int64_t relative_position, bool bidirectional, int64_t num_buckets,
                                 int64_t max_distance) {
  // Mesh TensorFlow, transformer/transformer_layers.py: half the buckets for each sign, half of those one distance
  // each, the rest on a logarithmic scale up to max_distance.
  const int64_t half = bidirectional ? num_buckets / 2 : num_buckets;
  const int64_t first = bidirectional && relative_position > 0 ? half : 0;
  const bool future = relative_position > 0;
  if (future && !bidirectional) return 0;
  const int64_t distance =
      future ? std::min(relative_position, max_distance) : -std::max(relative_position, -max_distance);
  const int64_t exact = half / 2;
  if (distance < exact) return first + distance;
  const double octaves =
      std::log(static_cast<double>(distance) / exact) / std::log(static_cast<double>(max_distance) / exact);
  return first + std::min(exact + static_cast<int64_t>(octaves * static_cast<double>(half - exact)), half - 1);
}

at::Tensor relative_bias_by_distance(const at::Tensor& weight, const RelativeBiasOptions& options) {
  SY_CHECK(weight.dim() == 2 && weight.size(0) == options.num_buckets, "relative_bias_by_distance: weight ",
           weight.sizes(), "; expected [num_buckets, heads] with ", options.num_buckets, " buckets");
  const int64_t exact = options.num_buckets / (options.bidirectional ? 4 : 2);
  SY_CHECK(exact >= 1 && options.max_distance > exact, "relative_bias_by_distance: ", options.num_buckets,
           " buckets up to distance ", options.max_distance, "; expected at least ", options.bidirectional ? 4 : 2,
           " buckets and a distance above ", exact);
  SY_CHECK(options.query_length >= 1 && options.key_length >= 1 && options.query_offset >= 0,
           "relative_bias_by_distance: query_length ", options.query_length, ", key_length ", options.key_length,
           ", query_offset ", options.query_offset, "; expected lengths of at least 1 and an offset of at least 0");
  std::vector<int64_t> buckets(options.query_length + options.key_length - 1);
  for (int64_t entry = 0; entry < static_cast<int64_t>(buckets.size()); ++entry)
    buckets[entry] = relative_position_bucket(entry - (options.query_length - 1) - options.query_offset,
                                              options.bidirectional, options.num_buckets, options.max_distance);
  const auto index = at::tensor(buckets, at::TensorOptions().dtype(at::kLong)).to(weight.device());
  const auto table = weight.scalar_type() == at::kDouble ? weight : weight.to(at::kFloat);
  return table.index_select(0, index).t().contiguous();
}

}  // namespace switchyard::ops
