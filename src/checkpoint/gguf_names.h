// The names of a model's parameters in GGUF: llama.cpp's of T5, and for experts those of its models with experts.
#pragma once

#include <string>

namespace switchyard {

// "encoder.block.3.layer.0.SelfAttention.q.weight" is "enc.blk.3.attn_q.weight"; experts
// "encoder.block.1.layer.1.mlp.experts.wi.weight" [num_experts, d_ff, d_model] are "enc.blk.1.ffn_up_exps.weight".
// "" where GGUF has no name for it: a stack's own input table, experts in attention.
std::string gguf_name(const std::string& parameter);

}  // namespace switchyard
