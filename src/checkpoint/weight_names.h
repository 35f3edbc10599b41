// The tensors that a model's file holds, and the parameters that they fill.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "model/parameters.h"

namespace switchyard {

// "...mlp.experts.wi.weight" for expert 3: "...mlp.experts.expert_3.wi.weight".
std::string expert_tensor_name(const std::string& parameter, int64_t expert);

// A model's tensors as HF stores them: experts one by one, a tied head absent, and an untied sparse model's embedding
// under its three names (HF 5.23.0 unties the input tables too and fills missing ones with noise).
std::vector<TensorToWrite> tensors_of(const ModelConfig& config, const ModelWeights& weights, at::ScalarType dtype);

// The other way: fills new weights of `dtype` from stored tensors. Throws one Error naming, for `source`, what is
// missing, unknown or wrongly shaped. May change config.tie_output where file and config disagree on the head, so that
// logits are HF's: a tied config whose file has its own head, and an untied one (T5) whose file has none.
ModelWeights weights_from(ModelConfig& config, const NamedTensors& stored, at::ScalarType dtype,
                          const std::string& source);

// Throws that Error without reading a weight (heads and input tables that must be equal are compared).
void check_weights(const ModelConfig& config, const NamedTensors& stored, const std::string& source);

}  // namespace switchyard
