// Weights as a forward pass reads them. A type of its own, apart from the weights that are trained: matrices that
// multiply the same input are one, experts may be read only when rows come, and matrices may be quantised
// (ops/quantized.h) for passes without gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "model/config.h"
#include "model/parameters.h"
#include "ops/dispatch.h"
#include "ops/experts.h"
#include "ops/feature_split.h"

namespace switchyard {

// One feed-forward network, or all experts of a layer with a leading [num_experts] axis.
struct FeedForwardMatrices {
  at::Tensor wi;    // [d_ff, d_model]: through the activation
  at::Tensor wi_1;  // [d_ff, d_model]: the gate, undefined without one
  at::Tensor wo;    // [d_model, d_ff]
};

struct ComputeFeedForward {
  FeedForwardMatrices dense;    // of a dense layer, or the shared expert beside routed ones; undefined if there is none
  FeedForwardMatrices experts;  // undefined in a dense layer
  RouterWeights router;
  ops::ExpertRuns expert_runs = {};  // set where experts are not all in memory
  bool is_sparse() const { return experts.wo.defined(); }
};

struct ComputeSelfAttention {
  at::Tensor qkv;  // [3 * heads * d_kv, d_model]; Switch attention: [num_experts, 3 * heads * d_kv, d_model]
  at::Tensor o;    // [d_model, heads * d_kv]
  RouterWeights router;
  bool is_sparse() const { return qkv.dim() == 3; }
};

struct ComputeCrossAttention {
  at::Tensor q;   // [heads * d_kv, d_model]
  at::Tensor kv;  // [2 * heads * d_kv, d_model], of the encoder's states
  at::Tensor o;   // [d_model, heads * d_kv]
};

struct ComputeBlock {
  at::Tensor relative_attention_bias;  // [num_buckets, heads]; undefined: the stack's
  at::Tensor self_attention_norm, cross_attention_norm, feed_forward_norm;  // [d_model]; cross: decoder only
  ComputeSelfAttention self_attention;
  ComputeCrossAttention cross_attention;
  ComputeFeedForward feed_forward;
};

struct ComputeStack {
  at::Tensor embedding;                // [vocab_size, d_model] as given, for input ids
  at::Tensor relative_attention_bias;  // [num_buckets, heads]
  std::vector<ComputeBlock> blocks;
  at::Tensor final_norm;  // [d_model]
};

struct ComputeWeights {
  at::ScalarType dtype;
  at::Tensor output;    // [vocab_size, d_model] in dtype, for logits
  double output_scale;  // d_model^-0.5 if the config scales, else 1
  ComputeStack encoder, decoder;
  int64_t vocab_size = 0;
  // Where parts of these matrices are elsewhere: to where experts are, null if all are here; how layers are cut along
  // their width, null if they are whole. Whoever cut the weights sets them; both outlive the weights.
  const ops::TokenExchange* exchange = nullptr;
  const ops::FeatureSplit* split = nullptr;

  ops::VocabularyPart vocabulary() const { return {split, ops::first_here(split, vocab_size), vocab_size}; }
};

// The dtype of a parameter in a forward pass in `dtype`: matrices `dtype` itself; norm scales, router and position bias
// f32 (f64 if `dtype` is): they are small and enter f32 islands.
at::ScalarType dtype_in_pass(const ParameterSpec& spec, at::ScalarType dtype);

// One matrix of a pass, made of parameters whose rows lie one behind the other in it: q, k and v, or one alone.
using MatrixMaker = std::function<at::Tensor(const std::vector<at::Tensor>& parts)>;

// Every tensor that a pass reads, made of `weights` by `make`; but embeddings, which are looked up as they are given,
// and `output`, which may be one of them in another dtype.
ComputeWeights arrange_weights(const ModelConfig& config, const ModelWeights& weights, at::ScalarType dtype,
                               const at::Tensor& output, const MatrixMaker& make);

// Casts and joins are differentiable, so gradients arrive at the given weights. A tensor already in the right dtype is
// not copied; matrices to be joined that lie one behind the other in memory are not either. Made once a step.
ComputeWeights cast_weights(const ModelConfig& config, const ModelWeights& weights, at::ScalarType dtype);

}  // namespace switchyard
