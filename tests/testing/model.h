// Models small enough for a test, with every kind of part.
#pragma once

#include "model/config.h"

namespace switchyard::test {

// For finite differences: two sparse and two dense layers a stack, groups smaller than the batches of tests, capacity
// that is reached, an inner width of attention (24) that is not d_model. Initial values are large enough that every
// part shows in the output.
inline ModelConfig tiny_model() {
  ModelConfig config;
  config.vocab_size = 64;
  config.d_model = 32;
  config.d_ff = 48;
  config.d_kv = 8;
  config.num_heads = 3;
  config.num_encoder_layers = config.num_decoder_layers = 4;
  config.encoder_sparse_step = config.decoder_sparse_step = 2;
  config.initializer_scale = 1.0;
  config.routing.num_experts = 4;
  config.routing.group_size = 16;
  config.routing.min_expert_capacity = 1;
  return config;
}

// The same at sizes that the products' kernels take, multiples of 64; the vocabulary need not be one.
inline ModelConfig fast_tiny_model() {
  auto config = tiny_model();
  config.vocab_size = 200;
  config.d_model = 64;
  config.d_ff = 128;
  config.d_kv = 16;
  config.num_heads = 4;
  config.num_encoder_layers = config.num_decoder_layers = 2;
  return config;
}

}  // namespace switchyard::test
