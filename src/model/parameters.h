// Every parameter of a model: one visitor over one struct of tensors. Initialisation, checkpoints, the optimiser,
// placement and counts all read the list that it makes.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "base/slice.h"
#include "model/config.h"

namespace switchyard {

enum class Initializer { kZeros, kOnes, kNormal, kTruncatedNormal };

// What a parameter is for. Experts are those of kAttention and kFeedForward that have an expert axis.
enum class Role {
  kEmbedding,
  kOutput,        // a head of its own
  kPositionBias,  // relative attention bias
  kNorm,          // the scale of an RMSNorm
  kAttention,     // q, k, v, o
  kFeedForward,   // wi, wi_0, wi_1, wo, shared experts too
  kRouter,
  kRouterBias,
  kSelectionBias  // of loss-free balancing: a rule of its own updates it, not the optimiser
};

struct ParameterSpec {
  // HF's name. An expert tensor is one parameter for all experts of its layer, named `...mlp.experts.wi.weight` with
  // shape [num_experts, ...]; in files it is split into `...mlp.experts.expert_E.wi.weight`.
  std::string name;
  std::vector<int64_t> shape;
  Role role = Role::kNorm;
  int64_t expert_axis = -1;  // the axis that counts experts, always the first; -1: none
  // The axis that tensor parallelism cuts, at multiples of `tensor_unit` (a head stays whole); -1: it is never cut.
  int64_t tensor_axis = -1;
  int64_t tensor_unit = 1;
  Initializer initializer = Initializer::kZeros;
  double stddev = 0.0;  // of the normal before truncation at two of it
  // Stays f32 under bf16 compute: vectors, routers, position bias, and attention's experts if the config says so.
  bool is_wide = false;

  bool is_expert() const { return expert_axis >= 0; }
  bool is_router() const { return role == Role::kRouter || role == Role::kRouterBias; }
  bool is_buffer() const { return role == Role::kSelectionBias; }  // without gradient
  int64_t numel() const;
};

// The router of a sparse layer; all undefined in a dense one and where experts are given by a hash.
struct RouterWeights {
  at::Tensor weight;          // [num_experts, d_model]
  at::Tensor bias;            // [num_experts], if the config has one
  at::Tensor selection_bias;  // [num_experts], of loss-free balancing
};

// Switch attention: q, k and v with a leading [num_experts] axis, and a router.
struct AttentionWeights {
  at::Tensor q, k, v;  // [heads * d_kv, d_model]
  at::Tensor o;        // [d_model, heads * d_kv]
  RouterWeights router;
  bool is_sparse() const { return q.dim() == 3; }
};

// Dense: wi [d_ff, d_model], wo [d_model, d_ff]; gated: wi_0 (through the activation) and wi_1 instead of wi.
// Sparse: the same with a leading [num_experts] axis, the router, and the shared expert's dense matrices if the config
// has one.
struct FeedForwardWeights {
  at::Tensor wi, wi_0, wi_1, wo;
  RouterWeights router;
  at::Tensor shared_wi, shared_wi_0, shared_wi_1, shared_wo;
  bool is_sparse() const { return wo.dim() == 3; }
};

struct BlockWeights {
  at::Tensor relative_attention_bias;  // [num_buckets, heads]; undefined: the stack's
  at::Tensor self_attention_norm, cross_attention_norm, feed_forward_norm;  // [d_model]; cross: decoder only
  AttentionWeights self_attention, cross_attention;
  FeedForwardWeights feed_forward;
};

struct StackWeights {
  at::Tensor relative_attention_bias;  // [num_buckets, heads], of the self-attention layers without one of their own
  std::vector<BlockWeights> blocks;
  at::Tensor final_norm;  // [d_model]
  at::Tensor embedding;   // [vocab_size, d_model], of the stack's own input ids; undefined: ModelWeights::shared
};

struct ModelWeights {
  at::Tensor shared;   // [vocab_size, d_model]: the embedding of all inputs and outputs that are tied
  at::Tensor lm_head;  // [vocab_size, d_model] when not tied
  StackWeights encoder, decoder;
};

struct NamedParameter {
  ParameterSpec spec;
  at::Tensor* tensor;  // into the ModelWeights that was listed
};

// All parameters of `config` in a fixed order; sizes the block lists of `weights` and points into it.
std::vector<NamedParameter> list_parameters(const ModelConfig& config, ModelWeights& weights);

// The specs alone, for counting and planning; allocates nothing.
std::vector<ParameterSpec> parameter_specs(const ModelConfig& config);

// The first parameter that differs, such as "NAME [16, 4] in place of [8, 4]"; "" if both models have the same ones.
std::string first_difference(const std::vector<ParameterSpec>& wanted, const std::vector<ParameterSpec>& present);

// Initial values of a parameter, f32 on the CPU, [experts.size(), ...] of those experts alone; of one without an expert
// axis {0, 1} stands for all of it. Each value is a pure function of (seed, parameter name, position).
at::Tensor initial_values(const ParameterSpec& spec, uint64_t seed, Slice experts);

// New f32 weights on `device`: all initial values.
ModelWeights initialize(const ModelConfig& config, uint64_t seed, at::Device device = at::kCPU);

}  // namespace switchyard
