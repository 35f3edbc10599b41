// From a model's configuration to one sparse layer's routing of one batch.
#pragma once

#include <ATen/core/Tensor.h>

#include "base/random.h"
#include "model/config.h"
#include "model/parameters.h"
#include "model/routing_groups.h"
#include "ops/router.h"

namespace switchyard {

// The batch that a sparse layer routes, and where in the model it stands.
struct RoutedBatch {
  at::Tensor x;     // [batch * length, d_model]: the layer's input, compute dtype
  at::Tensor ids;   // [batch, length] i64: for hash routing
  at::Tensor mask;  // [batch, length] bool or undefined: false is padding
  int64_t num_experts = 0;
  bool is_decoder = false;
  bool training = false;
  bool drop_tokens = true;       // false: capacity is not enforced, and sequences do not compete
  int64_t first_example = 0;     // number of row 0 in the step's global batch
  at::Tensor number = {};        // [batch * length] i64: of tokens in the step, where rows are packed
  int64_t encoder_length = 0;    // of the step's sequences: what groups are made by
  int64_t step_sequences = 0;    // of the whole step; 0: this batch is the step
  int64_t step_real_tokens = 0;  // of the whole step in this stack; 0: those of this batch
  NoiseKey noise;                // seed, step and layer; the purpose is set here
};

struct RoutedLayer {
  at::Tensor router_logits;  // [batch * length, num_experts] f32, zeros in hash routing
  ops::Routing routing;
  at::Tensor load_loss;  // [] or undefined without its coefficient
};

// In a decoder experts do not choose and nobody is preferred by probability, as both would let a token see later ones:
// expert_choice is top_k there, priorities batch and expert are token order.
RoutedLayer route_layer(const RoutingConfig& config, const RouterWeights& weights, const RoutedBatch& batch);

// The step of loss-free balancing (DeepSeek-V3): bias += rate * sign(mean load - load). bias and load [num_experts].
void update_selection_bias_(at::Tensor& bias, const at::Tensor& load, double rate);

}  // namespace switchyard
