#include "checkpoint/adapters.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <map>

#include "base/config.h"
#include "base/error.h"
#include "base/files.h"
#include "checkpoint/model_parts.h"
#include "checkpoint/safetensors.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kTensorFile = "adapter_model.safetensors";
const std::string kPrefix = "base_model.model.";  // PEFT's wrapper around the model's own modules
const std::string kWeight = ".weight", kA = ".lora_A.weight", kB = ".lora_B.weight";

std::string module_of(const std::string& matrix) { return matrix.substr(0, matrix.size() - kWeight.size()); }

double number_of(const Json& config, const char* key, const std::string& source) {
  SY_CHECK(config.contains(key) && config.at(key).is_number(), source, ": expected a number \"", key, "\"");
  return config.at(key).get<double>();
}

// Keys by which PEFT marks adapters of other kinds.
void refuse_other_kinds(const Json& config, const std::string& source) {
  SY_CHECK(config.value("peft_type", std::string()) == "LORA", source, ": peft_type is not LORA");
  for (const char* key : {"use_dora", "use_rslora", "fan_in_fan_out", "modules_to_save", "rank_pattern",
                          "alpha_pattern", "layer_replication", "trainable_token_indices"}) {
    if (!config.contains(key)) continue;
    const auto& value = config.at(key);
    SY_CHECK(value.is_null() || value == false || value.empty(), source, ": ", key, " = ", value.dump(),
             ", which is not read; merge these adapters with PEFT");
  }
  SY_CHECK(config.value("bias", std::string("none")) == "none", source, ": bias is not \"none\"");
}

Json peft_config(const Adapters& adapters) {
  Json modules = Json::array();
  for (const auto& pair : adapters.pairs) modules.push_back(module_of(pair.matrix));
  return {{"peft_type", "LORA"},
          {"task_type", "SEQ_2_SEQ_LM"},
          {"base_model_name_or_path", adapters.base},
          {"r", adapters.rank},
          {"lora_alpha", adapters.alpha},
          {"lora_dropout", 0.0},
          {"target_modules", modules},  // whole names: "wi" alone would be every expert's, too
          {"bias", "none"},
          {"fan_in_fan_out", false},
          {"inference_mode", true},
          {"init_lora_weights", true},
          {"modules_to_save", nullptr}};
}

// Elements first, first + 1, ... of the matrix with its product added, by the rows that they lie in.
StoredTensor merged(const StoredTensor& matrix, const AdapterPair& pair, double scale) {
  StoredTensor sum{.dtype = matrix.dtype, .shape = matrix.shape, .read = {}};
  sum.read = [matrix, pair, scale](int64_t first, const at::Tensor& to) {
    if (to.numel() == 0) return;
    const int64_t width = matrix.shape[1];
    const int64_t begin = first / width, end = (first + to.numel() + width - 1) / width;
    auto rows = at::empty({end - begin, width}, at::kFloat);
    matrix.read(begin * width, rows);
    rows += at::mm(pair.b.narrow(0, begin, end - begin), pair.a) * scale;
    to.copy_(rows.view({-1}).narrow(0, first - begin * width, to.numel()).view(to.sizes()));
  };
  return sum;
}

}  // namespace

bool has_adapters(const fs::path& folder) { return fs::exists(folder / kConfigFile); }

Adapters read_adapters(const fs::path& folder) {
  const auto path = folder / kConfigFile;
  const std::string source = path.string();
  const Json config = parse_json(read_file(path, uint64_t{1} << 24), source);
  SY_CHECK(config.is_object(), source, ": expected an object");
  refuse_other_kinds(config, source);
  Adapters adapters{.rank = static_cast<int64_t>(number_of(config, "r", source)),
                    .alpha = number_of(config, "lora_alpha", source)};
  SY_CHECK(adapters.rank >= 1, source, ": r = ", adapters.rank, ", expected at least 1");
  SY_CHECK(config.contains("base_model_name_or_path") && config.at("base_model_name_or_path").is_string(), source,
           ": expected the folder of a model in \"base_model_name_or_path\"");
  adapters.base = config.at("base_model_name_or_path").get<std::string>();
  const auto tensors_path = folder / kTensorFile;
  std::map<std::string, AdapterPair> pairs;
  for (const auto& [name, stored] : list_safetensors(tensors_path)) {
    const bool is_a = name.ends_with(kA);
    SY_CHECK(name.starts_with(kPrefix) && (is_a || name.ends_with(kB)) && stored.shape.size() == 2,
             tensors_path.string(), ": ", name, " is no part of a linear layer's adapter");
    SY_CHECK(stored.shape[is_a ? 0 : 1] == adapters.rank, tensors_path.string(), ": ", name, " has rank ",
             stored.shape[is_a ? 0 : 1], ", ", kConfigFile, " says ", adapters.rank);
    auto matrix = name.substr(kPrefix.size(), name.size() - kPrefix.size() - kA.size()) + kWeight;
    auto& pair = pairs[matrix];
    pair.matrix = std::move(matrix);
    (is_a ? pair.a : pair.b) = read_tensor(stored, at::kFloat);
  }
  for (const auto& [name, pair] : pairs) {
    SY_CHECK(pair.a.defined() && pair.b.defined(), tensors_path.string(), ": of ", name, " there is only one half");
    adapters.pairs.push_back(pair);
  }
  return adapters;
}

StoredTensors with_adapters(StoredTensors base, const Adapters& adapters, const std::string& source) {
  for (const auto& pair : adapters.pairs) {
    const auto found = base.find(pair.matrix);
    SY_CHECK(found != base.end(), source, ": adapts ", pair.matrix, ", which ", adapters.base, " does not have");
    const std::vector<int64_t> shape = {pair.b.size(0), pair.a.size(1)};
    SY_CHECK(found->second.shape == shape, source, ": the adapter of ", pair.matrix, " is for [", shape[0], ", ",
             shape[1], "], which it is not in ", adapters.base);
    found->second = merged(found->second, pair, adapters.scale());
  }
  return base;
}

void save_adapters(const fs::path& folder, const ModelConfig& config, const Adapters& adapters,
                   const SaveOptions& options) {
  begin_model(folder);
  std::vector<TensorToWrite> tensors;
  for (const auto& pair : adapters.pairs) {
    const auto module = kPrefix + module_of(pair.matrix);
    tensors.push_back({module + kA, pair.a, at::kFloat});
    tensors.push_back({module + kB, pair.b, at::kFloat});
  }
  write_safetensors(folder / kTensorFile, std::move(tensors));
  write_file_atomically(folder / kConfigFile, peft_config(adapters).dump(2) + "\n");
  finish_model(folder, config, options);
}

}  // namespace switchyard
