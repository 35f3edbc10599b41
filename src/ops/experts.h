// What experts compute on their rows, and the whole way from tokens through experts back to tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "base/random.h"
#include "base/slice.h"
#include "ops/activation.h"
#include "ops/dispatch.h"

namespace switchyard::ops {

// Of experts that are not all in memory: calls work(run) for runs that together are all experts, in their order. While
// it lasts, those of the run that have rows are in memory. num_rows [num_experts].
using ExpertRuns =
    std::function<void(const std::vector<int64_t>& num_rows, const std::function<void(Slice run)>& work)>;

struct ExpertsOptions {
  Activation activation = Activation::kRelu;
  double dropout_rate = 0.0;  // on the hidden layer, elementwise, keyed by dispatch.number (Switch §2.4 expert dropout)
  NoiseKey key;
  int64_t first_feature = 0;         // of the hidden layer, where wi and wo are a part of it (ops/feature_split.h)
  const ExpertRuns* runs = nullptr;  // null: all experts are in memory. In passes without gradient
  bool packs_few = false;            // a row's bits are the same however many its expert has (kernels/product.h)
};

// Each expert's feed-forward network on its rows. rows [rows, d_model] compute dtype in the dispatch's order; wi
// [num_experts, d_ff, d_model] (wi_0 if wi_1 is defined), wo [num_experts, d_model, d_ff], in the rows' dtype. Result
// [rows, d_model]. Differentiable in rows and weights. Whether a row depends on the others of its expert is said in
// kernels/product.h. Throws Error on other shapes or dtypes.
at::Tensor expert_rows(const at::Tensor& rows, const Dispatch& dispatch, const at::Tensor& wi, const at::Tensor& wi_1,
                       const at::Tensor& wo, const ExpertsOptions& options);

// The same with one matrix an expert, weight [num_experts, out, d_model]: [rows, out] (Switch attention, App. A).
at::Tensor expert_rows_linear(const at::Tensor& rows, const Dispatch& dispatch, const at::Tensor& weight);

// y[token] = sum over the rows of that token of gate[row] * expert_of(row)(x[token]): dispatch_rows, expert_rows,
// combine_rows, with `exchange` (null: every expert is here) between. x [tokens, d_model] compute dtype, gate [rows].
at::Tensor experts_feed_forward(const at::Tensor& x, const at::Tensor& gate, const Dispatch& dispatch,
                                const at::Tensor& wi, const at::Tensor& wi_1, const at::Tensor& wo,
                                const ExpertsOptions& options, const TokenExchange* exchange = nullptr);
at::Tensor experts_linear(const at::Tensor& x, const at::Tensor& gate, const Dispatch& dispatch,
                          const at::Tensor& weight, const TokenExchange* exchange = nullptr);

}  // namespace switchyard::ops
