// The names of a model's tensors in files, and which of them fill which parameter.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "checkpoint/stored_tensor.h"
#include "model/parameters.h"

namespace switchyard {

// "...mlp.experts.wi.weight" for expert 3: "...mlp.experts.expert_3.wi.weight".
std::string expert_tensor_name(const std::string& parameter, int64_t expert);

// Tables that may be the shared embedding under a further name: in files of untied sparse models, in old ones of T5.
inline constexpr const char* kHead = "lm_head.weight";
inline constexpr const char* kEncoderInput = "encoder.embed_tokens.weight";
inline constexpr const char* kDecoderInput = "decoder.embed_tokens.weight";

// One tensor, or one an expert; into the tensors that were planned.
using ParameterSource = std::vector<const StoredTensor*>;

// The sources of parameter_specs(config), in order, from headers alone; only tables that may be equal are read. Throws
// one Error naming, for `source`, what is missing, unknown or wrongly shaped. Changes config.tie_output,
// tie_encoder_input and tie_decoder_input to what the file shows, by HF's rule: a table with values of its own is not
// tied, one that is absent is. A second call changes nothing.
std::vector<ParameterSource> plan_weights(ModelConfig& config, const StoredTensors& stored, const std::string& source);

}  // namespace switchyard
