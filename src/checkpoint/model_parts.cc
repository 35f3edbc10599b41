#include "checkpoint/model_parts.h"

#include <ATen/ops/empty.h>

#include "base/error.h"
#include "base/files.h"
#include "checkpoint/hf_config.h"
#include "checkpoint/model_tensors.h"
#include "checkpoint/quantized_tensors.h"
#include "checkpoint/stored_tensors.h"
#include "checkpoint/tokenizer_files.h"
#include "checkpoint/weight_names.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

// Stands in a folder while a model is saved there, and stays if that is cut short: the folder had no weights before.
constexpr char kUnfinishedMark[] = ".switchyard-unfinished";

const char* hf_dtype_name(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return "float32";
    case at::kBFloat16:
    case at::kChar:  // int8 and int4: of what is not quantised
    case at::kByte:
      return "bfloat16";
    case at::kHalf:
      return "float16";
    default:
      throw Error(join("models are stored as fp32, bf16 or fp16, not ", c10::toString(dtype)));
  }
}

}  // namespace

ParameterFiles::ParameterFiles(const fs::path& folder) : files_(open_files(folder)) {
  for (const auto& source : plan_weights(files_.config, files_.tensors, files_.folder)) {
    sources_.emplace_back();
    for (const auto* tensor : source) sources_.back().push_back(*tensor);
  }
  specs_ = parameter_specs(files_.config);
}

at::Tensor ParameterFiles::read(size_t parameter, Slice experts, at::ScalarType dtype) const {
  const auto& spec = specs_.at(parameter);
  const auto& source = sources_.at(parameter);
  if (!spec.is_expert()) return read_tensor(source[0], dtype);
  auto shape = spec.shape;
  shape[0] = experts.size();
  auto values = at::empty(shape, at::TensorOptions().dtype(dtype));
  for (int64_t expert = experts.begin; expert < experts.end; ++expert)
    source.at(static_cast<size_t>(expert)).read(0, values.select(0, expert - experts.begin));
  return values;
}

void begin_model(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  SY_CHECK(fs::is_directory(folder), "cannot make the folder ", folder.string(), ": ", error.message());
  SY_CHECK(!fs::exists(folder / "config.json"), folder.string(),
           " already holds a model; remove it or choose another folder");
  const auto mark = folder / kUnfinishedMark;
  const auto weights = list_written_tensors(folder);
  SY_CHECK(weights.empty() || fs::exists(mark), folder.string(),
           " holds weights without a config.json: ", weights.front().filename().string(),
           "; remove them or choose another folder");
  write_file_atomically(mark, "A model is being saved here. Without config.json it is not whole.\n");
  remove_files(weights);
}

void write_model_part(const fs::path& folder, const ModelConfig& config, const std::vector<ModelPart>& parts,
                      int64_t number, int64_t count, at::ScalarType dtype) {
  auto tensors = tensors_of(config, parts, dtype);
  if (!tensors.empty())
    write_tensor_file(folder, std::move(tensors), static_cast<size_t>(number) + 1, static_cast<size_t>(count));
}

void finish_model(const fs::path& folder, const ModelConfig& config, const SaveOptions& options) {
  write_index_of_files(folder);
  if (!options.vocabulary.empty()) write_tokenizer_files(folder, options.vocabulary, options.tokenizer_json);
  write_file_atomically(folder / "generation_config.json",
                        Json{{"decoder_start_token_id", 0}, {"eos_token_id", 1}, {"pad_token_id", 0}}.dump(2) + "\n");
  auto json = config_to_hf(config, hf_dtype_name(options.dtype));
  if (const auto form = ops::quantized_form(options.dtype)) json["quantization_config"] = quantization_json(*form);
  write_file_atomically(folder / "config.json", json.dump(2) + "\n");
  std::error_code error;
  fs::remove(folder / kUnfinishedMark, error);
}

}  // namespace switchyard
