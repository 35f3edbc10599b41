// Models in GGUF files: T5's encoders and encoder-decoders as llama.cpp has them (architectures t5encoder and t5), and
// models that it cannot compute, with experts above all, under the same names and an architecture of our own.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/model_directory.h"
#include "checkpoint/stored_tensor.h"
#include "model/parameters.h"

namespace switchyard {

// The vocabulary as GGUF lists it: one entry an id. Types are SentencePiece's: 1 normal, 2 unknown, 3 control, 4
// user-defined, 5 unused, 6 byte.
struct GgufVocabulary {
  std::vector<std::string> tokens = {};
  std::vector<double> scores = {};
  std::vector<int64_t> types = {};
  std::string normalization_rules = {};  // SentencePiece's compiled table, or ""
  bool add_space_prefix = true, remove_extra_whitespaces = true;
  int64_t unknown_id = 2;
};

struct GgufModel {
  ModelFiles files;
  GgufVocabulary vocabulary;  // without tokens where the file has none
};

// The model by the file's head: tensors under Hugging Face's names, quantised ones as f32, read when they are wanted.
// Throws Error as read_gguf_header() does, for another architecture, and for tensors that do not fit each other.
GgufModel open_gguf(const std::filesystem::path& path);

// The values of each of parameter_specs(config), one tensor or several behind one another.
using ParameterValuesList = std::vector<std::vector<StoredTensor>>;

// Writes the file in one step. Matrices are stored in `dtype` (kFloat, kHalf or kBFloat16), everything small in f32, as
// llama.cpp wants it. Throws Error for a model with a parameter that GGUF has no name for.
void write_gguf(const std::filesystem::path& path, const ModelConfig& config, const ParameterValuesList& values,
                at::ScalarType dtype, const GgufVocabulary& vocabulary);

ParameterValuesList parameter_values(const ModelFiles& files);
ParameterValuesList parameter_values(const LoadedModel& model);

}  // namespace switchyard
