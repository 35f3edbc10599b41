// The experts' feed-forward over dispatched rows: gather, one product per expert and matrix, gate, scatter.
#pragma once

#include <ATen/core/Tensor.h>

#include "base/random.h"
#include "ops/activation.h"
#include "ops/router.h"

namespace switchyard::ops {

struct ExpertsOptions {
  Activation activation = Activation::kRelu;
  double dropout_rate = 0.0;  // on the hidden layer, elementwise, keyed by token (Switch §2.4 expert dropout)
  NoiseKey key;
  int64_t first_token = 0;  // number of token 0 in the step's global batch
};

// y[token] = sum over the rows of that token of gate[row] * expert_of(row)(x[token]); 0 for a token without a row (it
// passes by its residual). x [tokens, d_model] compute dtype; gate [rows] f32 (f64 in f64 models), in dispatch order;
// wi [num_experts, d_ff, d_model] (wi_0 if wi_1 is defined), wo [num_experts, d_model, d_ff], in x's dtype. Result
// [tokens, d_model], x's dtype. Differentiable in x, gate, wi, wi_1, wo. Sums have a fixed order. Throws Error on other
// shapes or dtypes.
at::Tensor experts_feed_forward(const at::Tensor& x, const at::Tensor& gate, const Dispatch& dispatch,
                                const at::Tensor& wi, const at::Tensor& wi_1, const at::Tensor& wo,
                                const ExpertsOptions& options);

// The same with one matrix an expert, weight [num_experts, out, d_model]: result [tokens, out] (Switch attention,
// App. A).
at::Tensor experts_linear(const at::Tensor& x, const at::Tensor& gate, const Dispatch& dispatch,
                          const at::Tensor& weight);

}  // namespace switchyard::ops
