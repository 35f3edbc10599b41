// Models that the planner's tests share.
#pragma once

#include "plan/workload.h"

namespace switchyard {

// 5 experts, 3 heads of 4, feed-forward of 6 and 10 ids: nothing divides by 2 or 4.
inline ModelConfig awkward_model() {
  ModelConfig config;
  config.vocab_size = 10;
  config.d_model = 8;
  config.d_ff = 6;
  config.d_kv = 4;
  config.num_heads = 3;
  config.num_encoder_layers = config.num_decoder_layers = 2;
  config.encoder_sparse_step = config.decoder_sparse_step = 2;
  config.encoder_attention_sparse_step = 1;
  config.routing.num_experts = 5;
  config.routing.router_bias = true;
  config.routing.shared_expert_d_ff = 3;
  config.gated = true;
  config.tie_output = false;
  return config;
}

// One layer a stack, dense or with 4 experts; every size a power of two.
inline Workload small_workload(bool sparse) {
  Workload workload;
  auto& config = workload.model;
  config.vocab_size = 128;
  config.d_model = 16;
  config.d_ff = 32;
  config.d_kv = 8;
  config.num_heads = 4;
  config.num_encoder_layers = config.num_decoder_layers = 1;
  if (sparse) {
    config.encoder_sparse_step = config.decoder_sparse_step = 1;
    config.routing.num_experts = 4;
    config.routing.group_size = 0;  // every sequence is a group
  }
  workload.batch_size = 8;
  workload.encoder_length = 64;
  workload.decoder_length = 32;
  return workload;
}

}  // namespace switchyard
