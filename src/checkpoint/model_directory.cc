#include "checkpoint/model_directory.h"

#include "base/config.h"
#include "base/error.h"
#include "base/files.h"
#include "checkpoint/hf_config.h"
#include "checkpoint/model_tensors.h"
#include "checkpoint/stored_tensors.h"
#include "checkpoint/tokenizer_files.h"
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
  return list_model_tensors(folder);
}

const char* hf_dtype_name(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return "float32";
    case at::kBFloat16:
      return "bfloat16";
    case at::kHalf:
      return "float16";
    default:
      throw Error(join("models are stored as fp32, bf16 or fp16, not ", c10::toString(dtype)));
  }
}

// Stands in a folder while a model is saved there, and stays if that is cut short: the folder had no weights before.
constexpr char kUnfinishedMark[] = ".switchyard-unfinished";

void begin_save(const fs::path& folder) {
  const auto mark = folder / kUnfinishedMark;
  const auto weights = list_written_tensors(folder);
  SY_CHECK(weights.empty() || fs::exists(mark), folder.string(),
           " holds weights without a config.json: ", weights.front().filename().string(),
           "; remove them or choose another folder");
  write_file_atomically(mark, "A model is being saved here. Without config.json it is not whole.\n");
  remove_files(weights);
}

void save_tensors(const fs::path& folder, const ModelConfig& config, std::vector<TensorToWrite> tensors,
                  const SaveOptions& options) {
  validate(config);
  const char* dtype = hf_dtype_name(options.dtype);
  std::error_code error;
  fs::create_directories(folder, error);
  SY_CHECK(fs::is_directory(folder), "cannot make the folder ", folder.string(), ": ", error.message());
  SY_CHECK(!fs::exists(folder / "config.json"), folder.string(),
           " already holds a model; remove it or choose another folder");
  begin_save(folder);
  write_model_tensors(folder, std::move(tensors), options.max_shard_bytes);
  if (!options.vocabulary.empty()) write_tokenizer_files(folder, options.vocabulary, options.tokenizer_json);
  write_file_atomically(folder / "generation_config.json",
                        Json{{"decoder_start_token_id", 0}, {"eos_token_id", 1}, {"pad_token_id", 0}}.dump(2) + "\n");
  write_file_atomically(folder / "config.json", config_to_hf(config, dtype).dump(2) + "\n");
  fs::remove(folder / kUnfinishedMark, error);
}

}  // namespace

LoadedModel open_model(const fs::path& folder, at::ScalarType dtype, at::Device device) {
  const StoredTensors stored = list_folder(folder);
  LoadedModel model;
  model.config = read_config(folder, stored);
  model.weights = weights_from(model.config, stored, dtype, device, folder.string());
  return model;
}

InferenceModel open_for_inference(const fs::path& folder, at::ScalarType dtype, at::Device device) {
  const StoredTensors stored = list_folder(folder);
  InferenceModel model;
  model.config = read_config(folder, stored);
  model.weights = compute_weights_from(model.config, stored, dtype, device, folder.string());
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
