// A model's parameters from stored tensors, and the tensors to store of a model.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "checkpoint/experts_on_demand.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/stored_tensor.h"
#include "model/parameters.h"
#include "model/transformer.h"

namespace switchyard {

// New weights of `dtype` on `device`. Config and errors: plan_weights().
ModelWeights weights_from(ModelConfig& config, const StoredTensors& stored, at::ScalarType dtype, at::Device device,
                          const std::string& source);

// The same values as cast_weights() of f32 weights (f64 if `dtype` is), made without them: each tensor is read into
// the dtype in which the forward pass wants it, experts on the CPU by `experts`, a new one, when a routing sends them
// rows.
ComputeWeights compute_weights_from(ModelConfig& config, const StoredTensors& stored, at::ScalarType dtype,
                                    at::Device device, const std::string& source,
                                    const std::shared_ptr<ExpertsOnDemand>& experts);

// A model's tensors as HF stores them: experts one by one, tied tables absent. Where HF ties nothing (a sparse model
// that does not scale its output), the embedding stands under every name: HF 5.23.0 fills missing tables with noise.
std::vector<TensorToWrite> tensors_of(const ModelConfig& config, const ModelWeights& weights, at::ScalarType dtype);
// Values of a parameter, or of a run of its experts.
struct ModelPart {
  size_t parameter = 0;
  Slice experts;  // {0, 1} without an expert axis
  at::Tensor values;
};
// Of the parts that are given; others are left out.
std::vector<TensorToWrite> tensors_of(const ModelConfig& config, const std::vector<ModelPart>& parts,
                                      at::ScalarType dtype);
// From other files, each tensor read while it is written.
std::vector<TensorToWrite> tensors_of(ModelConfig& config, const StoredTensors& stored, at::ScalarType dtype,
                                      const std::string& source);

}  // namespace switchyard
