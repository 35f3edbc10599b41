// The forward pass: T5's encoder and decoder with dense or Switch feed-forward layers, written for one device.
//
// The residual stream is f32 (f64 in f64 models) and every product runs in the compute dtype; norm statistics, softmax
// and everything from the router's input to its gates are f32 ("selective precision", Switch §2.4).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "model/compute_weights.h"
#include "model/config.h"
#include "model/token_layout.h"
#include "ops/router.h"

namespace switchyard {

class DecoderCache;  // model/decoder_cache.h

// The whole step that a forward pass is a part of, known before its first pass. Zeros: the pass is the whole step.
struct StepTotals {
  int64_t sequences = 0;
  int64_t encoder_tokens = 0, decoder_tokens = 0;  // without padding
  int64_t examples = 0;                            // more than sequences where rows are packed
};

struct ForwardOptions {
  bool training = false;  // dropout, jitter, train_capacity_factor
  uint64_t seed = 0;      // of the noise; used in training only
  int64_t step = 0;
  int64_t first_example = 0;  // number of row 0 in the step's global batch: any split of it draws the same noise
  StepTotals step_totals = {};
  bool drop_tokens = true;       // false: capacity is not enforced and sequences do not compete (generation)
  int64_t recompute_blocks = 0;  // of each stack, the first: they keep their input and run again for their gradient
  bool packs_few = false;        // experts' rows have the same bits however many they are (encoding prompts together)
};

// What one sparse layer did.
struct SparseLayer {
  std::string name;          // "encoder.1": stack and block; Switch attention: "encoder.1.attention"
  at::Tensor router_logits;  // [batch * length, num_experts] f32
  ops::Routing routing;
  at::Tensor load_loss;  // [], undefined without its coefficient
};

struct StackOutput {
  at::Tensor hidden;  // [batch, length, d_model] compute dtype, after the final norm and dropout
  std::vector<SparseLayer> sparse_layers;
};

StackOutput encode(const ModelConfig& config, const ComputeWeights& weights, const TokenLayout& tokens,
                   const ForwardOptions& options);

// Throws Error for a model that is an encoder alone.
void check_decoder(const ModelConfig& config);

// The decoder over whole sequences (teacher forcing). The tokens are the decoder's inputs (targets shifted right).
// encoder_hidden as got from encode(), of whose `encoder_tokens` all but the ids is read. Throws Error as
// check_decoder() does, and for packed rows whose encoder's are not.
StackOutput decode(const ModelConfig& config, const ComputeWeights& weights, const TokenLayout& tokens,
                   const at::Tensor& encoder_hidden, const TokenLayout& encoder_tokens, const ForwardOptions& options);

// Advances the rows in `slots` [rows] of the cache, each from its own length, by ids [rows, new_length] i64 and returns
// their hidden states [rows, new_length, d_model]. Equal to the same positions of decode() when no token is dropped.
// Without gradient; tokens are never dropped. `sparse_layers`, where given, becomes what they did. Throws Error beyond
// the cache's length.
at::Tensor decode_step(const ModelConfig& config, const ComputeWeights& weights, DecoderCache& cache,
                       const std::vector<int64_t>& slots, const at::Tensor& ids,
                       std::vector<SparseLayer>* sparse_layers = nullptr);
// The same by the operations that decode() is made of, where a step of one token has kernels of its own.
at::Tensor decode_step_by_operations(const ModelConfig& config, const ComputeWeights& weights, DecoderCache& cache,
                                     const std::vector<int64_t>& slots, const at::Tensor& ids,
                                     std::vector<SparseLayer>* sparse_layers = nullptr);

// Logits [..., vocab_size] f32 (f64 in f64) of hidden states [..., d_model] from a decoder: those that the loss is made
// of, not rounded to the compute dtype.
at::Tensor output_logits(const ComputeWeights& weights, const at::Tensor& hidden);

}  // namespace switchyard
