// A model on disk: config.json, model.safetensors or shards with an index, spiece.model and tokenizer files, under
// Hugging Face's names and layouts, so that from_pretrained opens what is written here and the other way round.
//
// A folder with adapter_config.json has adapters in place of weights (checkpoint/adapters.h), and is read as the model
// with these added.
//
// A folder is a model once it has config.json, which is written last: a save that was cut short never opens.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "checkpoint/experts_on_demand.h"
#include "checkpoint/stored_tensor.h"
#include "model/config.h"
#include "model/parameters.h"
#include "model/transformer.h"

namespace switchyard {

struct LoadedModel {
  ModelConfig config;
  ModelWeights weights;  // owned, writable
};

// Weights converted to `dtype` (kFloat, kBFloat16, kHalf, kDouble). Throws one Error naming every missing, unknown or
// wrongly shaped tensor (the first of each kind, and how many more).
LoadedModel open_model(const std::filesystem::path& folder, at::ScalarType dtype, at::Device device = at::kCPU);

// The model in the form of a forward pass in `dtype` (kFloat, kBFloat16, kDouble), for use without gradients. On the
// CPU it takes memory for what is used: experts are read when a routing first sends them rows, and a file that was
// changed meanwhile throws Error then. Same values and errors as cast_weights() of open_model().
struct InferenceModel {
  ModelConfig config;
  ComputeWeights weights;
  std::shared_ptr<const ExpertsOnDemand> experts = {};  // of `weights`, on the CPU
};
// expert_memory: bytes that experts may take together, on the CPU; no result depends on it. Throws Error where there
// are no experts or it holds not even one.
InferenceModel open_for_inference(const std::filesystem::path& folder, at::ScalarType dtype,
                                  at::Device device = at::kCPU, std::optional<int64_t> expert_memory = std::nullopt);

// A model without its values: the config as open_model() gives it, and the tensors by the headers of their files.
// Throws as open_model() does.
struct ModelFiles {
  std::string folder;
  ModelConfig config;
  StoredTensors tensors;
};
ModelFiles open_files(const std::filesystem::path& folder);

// Of open_files(): the config alone, with the sparse layers and the tables of their own that the weights show.
ModelConfig open_config(const std::filesystem::path& folder);

struct SaveOptions {
  at::ScalarType dtype = at::kFloat;  // kFloat, kBFloat16, kHalf, kChar (int8) or kByte (int4)
  uint64_t max_shard_bytes = 5'000'000'000;
  std::string vocabulary = {};      // bytes of spiece.model, written with the tokenizer files; empty: none
  std::string tokenizer_json = {};  // bytes of tokenizer.json, which goes with a vocabulary; empty: none
};

// Writes a model into `folder`, made if need be. Throws Error if it already holds a model, or weights that are not
// those of a save that was cut short, and when the disk refuses.
void save_model(const std::filesystem::path& folder, const ModelConfig& config, const ModelWeights& weights,
                const SaveOptions& options = {});

// The same from another folder's files, tensor by tensor.
void save_model(const std::filesystem::path& folder, const ModelFiles& files, const SaveOptions& options);

// Bytes of the folder's spiece.model, or "" if it has none.
std::string read_vocabulary(const std::filesystem::path& folder);

}  // namespace switchyard
