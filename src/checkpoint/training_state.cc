#include "checkpoint/training_state.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>

#include "base/error.h"
#include "base/files.h"
#include "checkpoint/safetensors.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr char kFolder[] = "training";
constexpr char kStateFile[] = "state.json";
constexpr char kTensorFile[] = "optimizer.safetensors";
constexpr char kPartFormat[] = "optimizer-%05" SCNd64 "-of-%05" SCNd64 ".safetensors";
constexpr int64_t kVersion = 1;
constexpr uint64_t kMaxStateBytes = uint64_t{1} << 26;

std::string file_name(int64_t number, int64_t count) {
  if (count == 1) return kTensorFile;
  char name[96];
  std::snprintf(name, sizeof name, "optimizer-%05" PRId64 "-of-%05" PRId64 ".safetensors", number + 1, count);
  return name;
}

}  // namespace

void write_training_tensors(const fs::path& model_folder,
                            const std::vector<std::pair<std::string, at::Tensor>>& tensors, int64_t number,
                            int64_t count) {
  const fs::path folder = model_folder / kFolder;
  std::error_code error;
  fs::create_directories(folder, error);
  SY_CHECK(fs::is_directory(folder), "cannot make the folder ", folder.string(), ": ", error.message());
  std::vector<TensorToWrite> list;
  for (const auto& [name, tensor] : tensors) list.push_back({name, tensor, tensor.scalar_type()});
  write_safetensors(folder / file_name(number, count), std::move(list));
}

void write_training_step(const fs::path& model_folder, int64_t step, const Json& state) {
  const Json json = {{"version", kVersion}, {"step", step}, {"state", state}};
  write_file_atomically(model_folder / kFolder / kStateFile, json.dump(2) + "\n");
}

void write_training_state(const fs::path& model_folder, const TrainingState& training) {
  write_training_tensors(model_folder, training.tensors, 0, 1);
  write_training_step(model_folder, training.step, training.state);
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
  int64_t count = 1;
  for (const auto& entry : fs::directory_iterator(model_folder / kFolder)) {
    int64_t number = 0, files = 0;
    const auto name = entry.path().filename().string();
    if (std::sscanf(name.c_str(), kPartFormat, &number, &files) == 2 && name == file_name(number - 1, files))
      count = files;
  }
  for (int64_t number = 0; number < count; ++number)
    for (const auto& tensor : read_safetensors(model_folder / kFolder / file_name(number, count)).tensors)
      training.tensors.push_back(tensor);
  std::sort(training.tensors.begin(), training.tensors.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  return training;
}

}  // namespace switchyard
