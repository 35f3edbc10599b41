// A model that several processes read and write together, each the parameters and experts that it holds. On disk there
// is no trace of how many they were, but for the number of files: a checkpoint of any layout opens under any other.
#pragma once

#include "base/slice.h"
#include "checkpoint/model_directory.h"
#include "checkpoint/model_tensors.h"

namespace switchyard {

// A model directory's parameters, read when they are asked for.
class ParameterFiles {
 public:
  explicit ParameterFiles(const std::filesystem::path& folder);  // throws Error as open_model() does

  const ModelConfig& config() const { return files_.config; }
  // New, on the CPU: [experts.size(), ...] of these experts; all of a parameter without experts.
  at::Tensor read(size_t parameter, Slice experts, at::ScalarType dtype) const;

 private:
  ModelFiles files_;
  std::vector<ParameterSpec> specs_;
  std::vector<std::vector<StoredTensor>> sources_;  // [parameter][expert, or one]
};

// begin_model(), by one process; then write_model_part() by each, with number in [0, count) and parts that together are
// the model once; then finish_model(), by one, when all are done. All throw Error as save_model() does.
void begin_model(const std::filesystem::path& folder);
void write_model_part(const std::filesystem::path& folder, const ModelConfig& config,
                      const std::vector<ModelPart>& parts, int64_t number, int64_t count, at::ScalarType dtype);
void finish_model(const std::filesystem::path& folder, const ModelConfig& config, const SaveOptions& options);

}  // namespace switchyard
