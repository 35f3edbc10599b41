// Low-rank adapters (LoRA) of a model in the files and under the names of PEFT: adapter_config.json and
// adapter_model.safetensors. A model directory that has them in place of weights is the model that they name with
// scale * B A added to its matrices.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/model_directory.h"

namespace switchyard {

struct AdapterPair {
  std::string matrix;  // HF's name: "encoder.block.0.layer.0.SelfAttention.q.weight", [out, in]
  at::Tensor a, b;     // f32 [rank, in] and [out, rank]
};

struct Adapters {
  std::string base = {};  // folder of the model that they are added to
  int64_t rank = 0;
  double alpha = 0.0;
  std::vector<AdapterPair> pairs = {};
  double scale() const { return alpha / static_cast<double>(rank); }
};

bool has_adapters(const std::filesystem::path& folder);

// Throws Error naming the file for what is no LoRA of linear layers: another kind of adapters, rows that do not fit,
// ranks that differ from matrix to matrix, bias or modules saved whole.
Adapters read_adapters(const std::filesystem::path& folder);

// The tensors of adapters.base with the products added when they are read, in f32. Throws Error naming a matrix that
// the model does not have, or has in another shape.
StoredTensors with_adapters(StoredTensors base, const Adapters& adapters, const std::string& source);

// A model directory of the adapters alone, with what save_model() puts beside weights.
void save_adapters(const std::filesystem::path& folder, const ModelConfig& config, const Adapters& adapters,
                   const SaveOptions& options);

}  // namespace switchyard
