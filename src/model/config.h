// The shape and semantics of one encoder-decoder: T5 with dense or Switch feed-forward layers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/routing_config.h"
#include "ops/activation.h"

namespace switchyard {

// Which blocks' feed-forwards are sparse: every n-th or those listed, or a number of them at one of Flaxformer's
// places.
enum class SparseLayout { kStep, kBottom, kMiddle, kTop, kMixed };
template <>
inline constexpr auto enum_words<SparseLayout> = std::to_array<const char*>({"step", "bottom", "middle", "top",
                                                                             "mixed"});

struct ModelConfig {
  int64_t vocab_size = 32128;  // rows of the embedding, a multiple of 128 in new models
  int64_t d_model = 512;
  int64_t d_ff = 2048;
  int64_t d_kv = 64;  // width of one attention head; heads * d_kv need not equal d_model
  int64_t num_heads = 8;
  int64_t num_encoder_layers = 6;
  int64_t num_decoder_layers = 6;  // 0 in files of encoders alone
  Activation activation = Activation::kRelu;
  bool gated = false;             // activation(x wi_0) * (x wi_1) in place of activation(x wi)
  bool tie_output = true;         // logits from the shared embedding, not from a head of its own
  bool scale_output = true;       // hidden states times d_model^-0.5 before the output
  bool tie_encoder_input = true;  // the stack looks ids up in the shared embedding, not in a table of its own
  bool tie_decoder_input = true;
  int64_t relative_attention_num_buckets = 32;
  int64_t relative_attention_max_distance = 128;
  bool relative_bias_every_layer = false;  // a table in every self-attention layer (umT5), not one a stack
  double layer_norm_epsilon = 1e-6;
  double dropout_rate = 0.0;         // T5's places; masks are shared along the length axis, as in Mesh
  double expert_dropout_rate = 0.0;  // on the hidden layer of experts only, elementwise (Switch §2.4)
  double initializer_scale = 0.1;    // s of std = sqrt(s / fan_in), Switch §2.4
  // Blocks whose feed-forward is sparse. "step": those where block % step == step - 1 (0: none), or the lists, if a
  // list is not empty. "bottom", "middle", "top" or "mixed": num_sparse_*_layers of them there (Flaxformer's layouts).
  SparseLayout sparse_layout = SparseLayout::kStep;
  int64_t encoder_sparse_step = 0;
  int64_t decoder_sparse_step = 0;
  std::vector<int64_t> sparse_encoder_layers;
  std::vector<int64_t> sparse_decoder_layers;
  int64_t num_sparse_encoder_layers = 0;
  int64_t num_sparse_decoder_layers = 0;
  // Experts of each sparse layer from the first to the last, instead of num_experts in all.
  std::vector<int64_t> encoder_num_experts;
  std::vector<int64_t> decoder_num_experts;
  // Switch attention (App. A): in every n-th block experts make the self-attention's queries, keys and values. 0: none.
  int64_t encoder_attention_sparse_step = 0;
  int64_t decoder_attention_sparse_step = 0;
  PartDtype attention_expert_dtype = PartDtype::kFp32;  // in bf16 they diverged (table 10)
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
    field("scale_output", self.scale_output,
          "hidden states times d_model^-0.5 before the output; in a run file it follows tie_output");
    field("tie_encoder_input", self.tie_encoder_input, "the encoder's input embedding is the shared one");
    field("tie_decoder_input", self.tie_decoder_input, "the decoder's input embedding is the shared one");
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
    field("sparse_layout", self.sparse_layout, "step (keys above), or bottom, middle, top or mixed with the counts");
    field("num_sparse_encoder_layers", self.num_sparse_encoder_layers, "sparse encoder blocks of a layout by count");
    field("num_sparse_decoder_layers", self.num_sparse_decoder_layers, "sparse decoder blocks of a layout by count");
    field("encoder_num_experts", self.encoder_num_experts, "experts of each sparse encoder layer; empty: num_experts");
    field("decoder_num_experts", self.decoder_num_experts, "experts of each sparse decoder layer; empty: num_experts");
    field("encoder_attention_sparse_step", self.encoder_attention_sparse_step,
          "every n-th encoder self-attention has experts; 0: none");
    field("decoder_attention_sparse_step", self.decoder_attention_sparse_step,
          "every n-th decoder self-attention has experts; 0: none");
    field("attention_expert_dtype", self.attention_expert_dtype, "experts of attention compute in fp32 or compute");
    RoutingConfig::visit(self.routing, field);
  }

  bool is_sparse_encoder_layer(int64_t block) const;
  bool is_sparse_decoder_layer(int64_t block) const;
  bool has_sparse_layers() const;
  bool has_sparse_attention(bool decoder, int64_t block) const;
  int64_t layer_num_experts(bool decoder, int64_t block) const;  // of a sparse feed-forward
  int64_t inner_size() const { return num_heads * d_kv; }        // width of q, k, v
};

// Throws Error naming the field if sizes are not positive, a sparse layer does not exist, experts are missing, and so
// on.
void validate(const ModelConfig& config);
// The same of a model in a file, which may be an encoder alone: num_decoder_layers 0.
void validate_stored(const ModelConfig& config);

// The configuration of a preset name of the design (switch-base-8, t5-small, switch-mini-8, ...). Throws Error with the
// nearest known name.
ModelConfig preset(const std::string& name);
std::vector<std::string> preset_names();

// Sparse blocks of Flaxformer's layouts: "bottom" the first, "top" the last, "middle" the middle ones, "mixed" those
// where block % (num_layers / num_sparse) is the last of its run. Throws Error if mixed does not divide num_layers.
std::vector<int64_t> sparse_layout(SparseLayout layout, int64_t num_layers, int64_t num_sparse);

}  // namespace switchyard
