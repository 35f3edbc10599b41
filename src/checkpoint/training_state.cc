#include "checkpoint/training_state.h"

#include "base/error.h"
#include "base/files.h"
#include "checkpoint/safetensors.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr char kFolder[] = "training";
constexpr char kStateFile[] = "state.json";
constexpr char kTensorFile[] = "optimizer.safetensors";
constexpr int64_t kVersion = 1;
constexpr uint64_t kMaxStateBytes = uint64_t{1} << 26;

}  // namespace

void write_training_state(const fs::path& model_folder, const TrainingState& training) {
  const fs::path folder = model_folder / kFolder;
  std::error_code error;
  fs::create_directories(folder, error);
  SY_CHECK(fs::is_directory(folder), "cannot make the folder ", folder.string(), ": ", error.message());
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, tensor] : training.tensors) tensors.push_back({name, tensor, tensor.scalar_type()});
  write_safetensors(folder / kTensorFile, std::move(tensors));
  const Json json = {{"version", kVersion}, {"step", training.step}, {"state", training.state}};
  write_file_atomically(folder / kStateFile, json.dump(2) + "\n");
}

TrainingState read_training_step(const fs::path& model_folder) {
  const fs::path path = model_folder / kFolder / kStateFile;
  SY_CHECK(fs::exists(path), model_folder.string(), " has no training state (", kFolder, "/", kStateFile,
           "); only a checkpoint of a training run can be resumed");
  const Json json = parse_json(read_file(path, kMaxStateBytes), path.string());
  TrainingState training;
  SY_CHECK(json.is_object() && json.contains("version") && json.contains("step") && json.contains("state"),
           path.string(), ": expected version, step and state");
  SY_CHECK(json.at("version") == kVersion, path.string(), ": version ", json.at("version").dump().substr(0, 40),
           ", this program reads version ", kVersion);
  config_detail::read_value(json.at("step"), path.string() + ": step", training.step);
  SY_CHECK(training.step >= 0, path.string(), ": step is ", training.step);
  training.state = json.at("state");
  return training;
}

TrainingState read_training_state(const fs::path& model_folder) {
  TrainingState training = read_training_step(model_folder);
  for (const auto& [name, tensor] : read_safetensors(model_folder / kFolder / kTensorFile).tensors)
    training.tensors.emplace_back(name, tensor.clone());
  return training;
}

}  // namespace switchyard
