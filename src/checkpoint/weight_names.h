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

// Further names of the input embedding in untied sparse models, and in old files of T5.
inline constexpr const char* kInputTables[] = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"};

struct ParameterSource {
  std::vector<const StoredTensor*> parts;  // one, or one an expert; into the tensors that were planned
  double scale = 1.0;  // of a head of its own in a file whose config scales hidden states as if it were tied
};

// The sources of parameter_specs(config), in order, from headers alone; only heads and input tables that must be equal
// are read. Throws one Error naming, for `source`, what is missing, unknown or wrongly shaped. May change
// config.tie_output where file and config disagree on the head, so that logits are HF's: a tied config whose file has
// its own head, and an untied one (T5) whose file has none.
std::vector<ParameterSource> plan_weights(ModelConfig& config, const StoredTensors& stored, const std::string& source);

}  // namespace switchyard
