// The dense pieces of a T5 block as differentiable functions.
//
// Precision: the residual stream is f32 (f64 in f64 models); products run in the compute dtype of the weights they are
// given. Every function has a plain ATen form, used for f64, for devices other than CPU and with --kernels reference.
#pragma once

#include <ATen/core/Tensor.h>

#include "base/random.h"
#include "ops/activation.h"
#include "ops/feature_split.h"

namespace switchyard::ops {

// y = scale * x / sqrt(mean(x^2) + epsilon) over the last axis (T5 §2.1); statistics in f32 (f64 for f64).
// x [..., d_model] f32 or f64; scale [d_model] of x's dtype; result in `out_dtype`.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& scale, double epsilon, at::ScalarType out_dtype);

// x + delta, where x is the residual stream and delta [same shape] a sublayer's output in the compute dtype.
at::Tensor add_residual(const at::Tensor& x, const at::Tensor& delta);

// x [..., in] by weight [out, in]: x weight^T, in x's dtype (weight is of the same dtype). Whether rows depend on the
// rows beside them is said in kernels/product.h; in the plain form they may.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight);

// Rows of weight [vocab, d_model] at ids [...] i64: [..., d_model] in weight's dtype; the gradient is dense and its
// sums have a fixed order. Throws Error on an id outside the table. With a part of the table, ids are of the whole.
at::Tensor embedding(const at::Tensor& weight, const at::Tensor& ids, const VocabularyPart& part = {});

// T5 dropout of x [batch, length, channels] with one mask per (example, channel), shared along the length axis (Mesh's
// broadcast). Row b is example first_example + b of stream `key`, or position (b, t) of packed rows is of
// example[b][t]: example [batch, length] i64 or undefined. Identity if rate is 0. Kept values are scaled by 1/(1-rate).
at::Tensor dropout(const at::Tensor& x, double rate, const NoiseKey& key, int64_t first_example,
                   const at::Tensor& example = {});

at::Tensor activation(const at::Tensor& x, Activation activation);

// Dense feed-forward: activation(x wi^T) wo^T, or activation(x wi_0^T) * (x wi_1^T) wo^T if wi_1 is defined (wi is then
// wi_0). x [batch, length, d_model], wi [d_ff, d_model], wo [d_model, d_ff]. hidden_dropout as in dropout(), on the
// hidden layer.
struct FeedForwardOptions {
  Activation activation = Activation::kRelu;
  double hidden_dropout_rate = 0.0;
  NoiseKey key;
  int64_t first_example = 0;
  int64_t first_feature = 0;  // of the hidden layer, where wi and wo are a part of it (ops/feature_split.h)
  at::Tensor example = {};    // [batch, length] i64, as in dropout()
};
at::Tensor feed_forward(const at::Tensor& x, const at::Tensor& wi, const at::Tensor& wi_1, const at::Tensor& wo,
                        const FeedForwardOptions& options);

}  // namespace switchyard::ops
