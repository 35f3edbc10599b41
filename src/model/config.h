// The shape and semantics of one encoder-decoder: T5 with dense or Switch feed-forward layers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

// How tokens choose experts (Switch §2). Capacity is counted within groups of consecutive tokens of the batch, never
// within a rank's share of it.
struct RoutingConfig {
  int64_t num_experts = 0;              // 0: every feed-forward layer is dense
  double train_capacity_factor = 1.25;  // expert_capacity = floor(group size * factor / num_experts), Switch eq. 3
  double eval_capacity_factor = 2.0;
  int64_t min_expert_capacity = 4;  // slots; expert_capacity is never below it, nor above the group's size
  int64_t expert_capacity =
      0;  // slots per expert and group in place of the factors (HF's convention); 0: use the factors
  int64_t group_size = 1024;   // tokens; 0: each sequence is a group. The last group may be shorter
  double jitter_noise = 1e-2;  // the router's copy of the input *= U(1 - e, 1 + e), training only (Switch App. C)
  double load_balance_loss_coef = 1e-2;  // alpha of Switch eq. 4; summed over sparse layers
  double router_z_loss_coef = 0.0;       // ST-MoE eq. 5; off as in Switch
  bool router_bias = false;

  template <class Self, class Field>
  static void visit(Self& self, Field&& field) {
    field("num_experts", self.num_experts, "experts in each sparse layer; 0 for a dense model");
    field("train_capacity_factor", self.train_capacity_factor, "slots per expert over the even share, in training");
    field("eval_capacity_factor", self.eval_capacity_factor, "the same in evaluation");
    field("min_expert_capacity", self.min_expert_capacity, "fewest slots per expert and group");
    field("expert_capacity", self.expert_capacity,
          "slots per expert and group, instead of the factors; 0 uses the factors");
    field("group_size", self.group_size, "consecutive tokens that compete for slots; 0: one sequence");
    field("jitter_noise", self.jitter_noise, "router input jitter in training, 0 for none");
    field("load_balance_loss_coef", self.load_balance_loss_coef, "weight of each sparse layer's balance loss");
    field("router_z_loss_coef", self.router_z_loss_coef, "weight of each sparse layer's z-loss on router logits");
    field("router_bias", self.router_bias, "adds a bias to the router logits");
  }
};

struct ModelConfig {
  int64_t vocab_size = 32128;  // rows of the embedding, a multiple of 128 in new models
  int64_t d_model = 512;
  int64_t d_ff = 2048;
  int64_t d_kv = 64;  // width of one attention head; heads * d_kv need not equal d_model
  int64_t num_heads = 8;
  int64_t num_encoder_layers = 6;
  int64_t num_decoder_layers = 6;
  std::string activation = "relu";  // "relu", "gelu" (erf), "gelu_new" (tanh), "silu"
  bool gated = false;               // activation(x wi_0) * (x wi_1) in place of activation(x wi)
  bool tie_output = true;           // logits from the embedding, hidden scaled by d_model^-0.5
  int64_t relative_attention_num_buckets = 32;
  int64_t relative_attention_max_distance = 128;
  bool relative_bias_every_layer = false;  // a table in every self-attention layer (umT5), not one a stack
  double layer_norm_epsilon = 1e-6;
  double dropout_rate = 0.0;         // T5's places; masks are shared along the length axis, as in Mesh
  double expert_dropout_rate = 0.0;  // on the hidden layer of experts only, elementwise (Switch §2.4)
  double initializer_scale = 0.1;    // s of std = sqrt(s / fan_in), Switch §2.4
  // Blocks whose feed-forward is sparse: those where block % step == step - 1, or the lists, if a list is not empty. 0:
  // none.
  int64_t encoder_sparse_step = 0;
  int64_t decoder_sparse_step = 0;
  std::vector<int64_t> sparse_encoder_layers;
  std::vector<int64_t> sparse_decoder_layers;
  RoutingConfig routing;

  template <class Self, class Field>
  static void visit(Self& self, Field&& field) {
    field("vocab_size", self.vocab_size, "embedding rows; in training it follows the vocabulary");
    field("d_model", self.d_model, "width of the residual stream");
    field("d_ff", self.d_ff, "hidden width of each feed-forward network and of each expert");
    field("d_kv", self.d_kv, "width of one attention head");
    field("num_heads", self.num_heads, "attention heads");
    field("num_encoder_layers", self.num_encoder_layers, "encoder blocks");
    field("num_decoder_layers", self.num_decoder_layers, "decoder blocks");
    field("activation", self.activation, "relu, gelu (erf), gelu_new (tanh) or silu");
    field("gated", self.gated, "gated feed-forward: activation(x wi_0) * (x wi_1)");
    field("tie_output", self.tie_output, "output projection shares the embedding");
    field("relative_attention_num_buckets", self.relative_attention_num_buckets, "relative position buckets");
    field("relative_attention_max_distance", self.relative_attention_max_distance,
          "distance from which all share a bucket");
    field("relative_bias_every_layer", self.relative_bias_every_layer,
          "a relative position table in every layer (umT5), not one a stack");
    field("layer_norm_epsilon", self.layer_norm_epsilon, "added to the mean square in RMSNorm");
    field("dropout_rate", self.dropout_rate, "dropout everywhere but inside experts");
    field("expert_dropout_rate", self.expert_dropout_rate, "dropout on the experts' hidden layer");
    field("initializer_scale", self.initializer_scale, "s of the initial std sqrt(s / fan_in)");
    field("encoder_sparse_step", self.encoder_sparse_step, "every n-th encoder feed-forward is sparse; 0: none");
    field("decoder_sparse_step", self.decoder_sparse_step, "every n-th decoder feed-forward is sparse; 0: none");
    field("sparse_encoder_layers", self.sparse_encoder_layers, "sparse encoder blocks by number, instead of the step");
    field("sparse_decoder_layers", self.sparse_decoder_layers, "sparse decoder blocks by number, instead of the step");
    RoutingConfig::visit(self.routing, field);
  }

  bool is_sparse_encoder_layer(int64_t block) const;
  bool is_sparse_decoder_layer(int64_t block) const;
  bool has_sparse_layers() const;
  int64_t inner_size() const { return num_heads * d_kv; }  // width of q, k, v
};

// Throws Error naming the field if sizes are not positive, a sparse layer does not exist, experts are missing, and so
// on.
void validate(const ModelConfig& config);

// The configuration of a preset name of the design (switch-base-8, t5-small, switch-mini-8, ...). Throws Error with the
// nearest known name.
ModelConfig preset(const std::string& name);
std::vector<std::string> preset_names();

// Slots per expert in a group of `group_tokens` (Switch eq. 3, rounding and bounds as Mesh): an absolute
// expert_capacity if one is set, else max(min_expert_capacity, min(group_tokens, floor(group_tokens * factor /
// num_experts))).
int64_t expert_capacity(const RoutingConfig& routing, int64_t group_tokens, bool training);

}  // namespace switchyard
