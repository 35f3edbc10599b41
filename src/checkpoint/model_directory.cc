#include "checkpoint/model_directory.h"

#include <memory>

#include "base/config.h"
#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "checkpoint/adapters.h"
#include "checkpoint/hf_config.h"
#include "checkpoint/model_parts.h"
#include "checkpoint/model_tensors.h"
#include "checkpoint/quantized_tensors.h"
#include "checkpoint/stored_tensors.h"
#include "checkpoint/weight_names.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxConfigBytes = uint64_t{1} << 20;
constexpr uint64_t kMaxVocabularyBytes = uint64_t{1} << 28;

ModelConfig read_config(const fs::path& folder, const StoredTensors& stored) {
  const auto path = folder / "config.json";
  std::vector<std::string> names;
  for (const auto& [name, tensor] : stored) names.push_back(name);
  return config_from_hf(parse_json(read_file(path, kMaxConfigBytes), path.string()), path.string(), names);
}

StoredTensors list_folder(const fs::path& folder) {
  SY_CHECK(fs::is_directory(folder), folder.string(), " is not a folder; expected a model directory");
  SY_CHECK(fs::exists(folder / "config.json"), folder.string(), " is not a model: config.json is missing");
  if (has_adapters(folder)) {
    const auto adapters = read_adapters(folder);
    SY_CHECK(fs::is_directory(adapters.base), folder.string(), " adapts the model in ", adapters.base,
             ", which is not there; its place stands in adapter_config.json");
    SY_CHECK(!has_adapters(adapters.base), folder.string(), " adapts ", adapters.base,
             ", which is adapters itself; merge that one first with `switchyard convert`");
    return with_adapters(list_folder(adapters.base), adapters, folder.string());
  }
  return with_quantized(list_model_tensors(folder), folder.string());
}

// The same tensors, which tell how far the writing of a large model is.
std::vector<TensorToWrite> with_progress(std::vector<TensorToWrite> tensors, const fs::path& folder) {
  struct Writing {
    Writing(const std::string& target, double total) : progress({.name = "write " + target, .unit = "MB"}, total) {}
    Progress progress;
    double done = 0.0;
  };
  const auto megabytes = [](const TensorToWrite& each) {
    return 1e-6 * static_cast<double>(each.tensor.numel()) * static_cast<double>(c10::elementSize(each.dtype));
  };
  double total = 0.0;
  for (const auto& each : tensors) total += megabytes(each);
  const auto writing = std::make_shared<Writing>(folder.string(), total);
  for (auto& each : tensors)
    each.read = [writing, read = each.read, tensor = each.tensor, size = megabytes(each), name = each.name] {
      writing->progress.update(writing->done += size, name);
      return read ? read() : tensor;
    };
  return tensors;
}

void save_tensors(const fs::path& folder, const ModelConfig& config, std::vector<TensorToWrite> tensors,
                  const SaveOptions& options) {
  validate_stored(config);
  begin_model(folder);
  write_model_tensors(folder, with_progress(std::move(tensors), folder), options.max_shard_bytes);
  finish_model(folder, config, options);
}

}  // namespace

LoadedModel open_model(const fs::path& folder, at::ScalarType dtype, at::Device device) {
  const StoredTensors stored = list_folder(folder);
  LoadedModel model;
  model.config = read_config(folder, stored);
  model.weights = weights_from(model.config, stored, dtype, device, folder.string());
  return model;
}

InferenceModel open_for_inference(const fs::path& folder, at::ScalarType dtype, at::Device device,
                                  std::optional<int64_t> expert_memory) {
  const StoredTensors stored = list_folder(folder);
  InferenceModel model;
  model.config = read_config(folder, stored);
  SY_CHECK(!expert_memory || model.config.has_sparse_layers(), folder.string(),
           " has no experts, whose memory could be bounded");
  SY_CHECK(!expert_memory || device.is_cpu(),
           "experts come and go on the CPU alone; on a GPU their memory has no bound");
  const auto experts = std::make_shared<ExpertsOnDemand>(expert_memory);
  model.weights = compute_weights_from(model.config, stored, dtype, device, folder.string(), experts);
  if (device.is_cpu()) model.experts = experts;
  return model;
}

ModelConfig open_config(const fs::path& folder) { return open_files(folder).config; }

ModelFiles open_files(const fs::path& folder) {
  ModelFiles files{folder.string(), {}, list_folder(folder)};
  files.config = read_config(folder, files.tensors);
  plan_weights(files.config, files.tensors, files.folder);
  return files;
}

void save_model(const fs::path& folder, const ModelConfig& config, const ModelWeights& weights,
                const SaveOptions& options) {
  save_tensors(folder, config, tensors_of(config, weights, options.dtype), options);
}

void save_model(const fs::path& folder, const ModelFiles& files, const SaveOptions& options) {
  ModelConfig config = files.config;
  auto tensors = tensors_of(config, files.tensors, options.dtype, files.folder);
  save_tensors(folder, config, std::move(tensors), options);
}

std::string read_vocabulary(const fs::path& folder) {
  const auto path = folder / "spiece.model";
  return fs::exists(path) ? read_file(path, kMaxVocabularyBytes) : "";
}

}  // namespace switchyard
