// A model's parameters from stored tensors, and the tensors to store of a model.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "checkpoint/stored_tensor.h"
#include "model/parameters.h"
#include "model/transformer.h"

namespace switchyard {

// New weights of `dtype`. Config and errors: plan_weights().
ModelWeights weights_from(ModelConfig& config, const StoredTensors& stored, at::ScalarType dtype,
                          const std::string& source);

// The same values as cast_weights() of fp32 weights (fp64 if `dtype` is), made without them: each tensor is read into
// the dtype in which the forward pass wants it, experts when a routing first sends them rows.
ComputeWeights compute_weights_from(ModelConfig& config, const StoredTensors& stored, at::ScalarType dtype,
                                    const std::string& source);

// A model's tensors as HF stores them: experts one by one, a tied head absent, and an untied sparse model's embedding
// under its three names (HF 5.23.0 unties the input tables too and fills missing ones with noise).
std::vector<TensorToWrite> tensors_of(const ModelConfig& config, const ModelWeights& weights, at::ScalarType dtype);
// From other files, each tensor read while it is written.
std::vector<TensorToWrite> tensors_of(ModelConfig& config, const StoredTensors& stored, at::ScalarType dtype,
                                      const std::string& source);

}  // namespace switchyard
