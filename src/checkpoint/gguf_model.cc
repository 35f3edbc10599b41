#include "checkpoint/gguf_model.h"

#include <cstdio>
#include <cstdlib>
#include <set>

#include "base/config.h"
#include "base/error.h"
#include "checkpoint/gguf_blocks.h"
#include "checkpoint/gguf_header.h"
#include "checkpoint/gguf_names.h"
#include "checkpoint/gguf_writer.h"
#include "checkpoint/weight_names.h"

namespace switchyard {
namespace {

constexpr int64_t kMostExperts = 1 << 16;  // of a layer, each of which becomes a tensor

using Tensors = std::map<std::string, const GgufTensor*>;

const GgufTensor* find(const Tensors& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  return found == tensors.end() ? nullptr : found->second;
}

int64_t required(const GgufHeader& header, const std::string& key, const std::string& source) {
  SY_CHECK(header.values.contains(key), source, ": ", key, " is missing");
  return header.integer(key, source, 0);
}

// A fraction that stands in the file as f32, as it was meant: 1e-6, not 9.9999999747524e-7.
double as_meant(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.7g", value);
  return std::strtod(text, nullptr);
}

// What llama.cpp's keys and tensors say of a T5 model.
ModelConfig config_of_t5(const GgufHeader& header, const Tensors& tensors, const std::string& architecture,
                         const std::string& source) {
  const auto integer = [&](const char* key) { return required(header, architecture + "." + key, source); };
  ModelConfig config;
  const auto* embedding = find(tensors, "token_embd.weight");
  SY_CHECK(embedding != nullptr && embedding->shape.size() == 2, source,
           ": token_embd.weight is missing or no matrix; is it a T5 encoder's file?");
  config.vocab_size = embedding->shape[0];
  config.d_model = integer("embedding_length");
  config.d_ff = integer("feed_forward_length");
  config.num_heads = integer("attention.head_count");
  config.d_kv = integer("attention.key_length");
  config.num_encoder_layers = integer("block_count");
  config.num_decoder_layers = architecture == "t5encoder" ? 0
                                                          : header.integer(architecture + ".decoder_block_count",
                                                                           source, config.num_encoder_layers);
  config.relative_attention_num_buckets =
      header.integer(architecture + ".attention.relative_buckets_count", source, 32);
  config.layer_norm_epsilon = as_meant(header.number(architecture + ".attention.layer_norm_rms_epsilon", source, 1e-6));
  config.gated = find(tensors, "enc.blk.0.ffn_gate.weight") != nullptr;
  config.activation = config.gated ? Activation::kGeluNew : Activation::kRelu;
  config.relative_bias_every_layer = find(tensors, "enc.blk.1.attn_rel_b.weight") != nullptr;
  // llama.cpp's converter leaves out a tied head; such models are T5's first, which scale.
  config.tie_output = config.scale_output = find(tensors, "output.weight") == nullptr;
  config.routing.num_experts = 0;
  config.initializer_scale = 1.0;
  config.dropout_rate = 0.1;
  return config;
}

ModelConfig config_of(const GgufHeader& header, const Tensors& tensors, const std::string& source) {
  const auto architecture = header.text("general.architecture", source);
  SY_CHECK(architecture == "t5" || architecture == "t5encoder" || architecture == kOwnArchitecture, source,
           ": a model of architecture \"", architecture.substr(0, 60), "\"; expected t5, t5encoder or ",
           kOwnArchitecture);
  ModelConfig config;
  const auto own = header.text(kConfigKey, source);
  if (own.empty()) {
    SY_CHECK(architecture != kOwnArchitecture, source, ": ", kConfigKey, " is missing");
    config = config_of_t5(header, tensors, architecture, source);
  } else {
    ConfigDocument document;
    document.sections[kConfigKey] = parse_json(own, source + ": " + kConfigKey);
    SY_CHECK(document.sections[kConfigKey].is_object(), source, ": ", kConfigKey, " is not an object");
    for (const auto& [key, value] : document.sections[kConfigKey].items())
      document.places[std::string(kConfigKey) + "." + key] = source;
    read_section(config, document, kConfigKey);
  }
  try {
    validate_stored(config);
  } catch (const Error& error) {
    throw Error(join(source, ": ", error.what()));
  }
  return config;
}

// Every tensor under the name and in the parts of a model directory; what no parameter takes keeps its own name, and is
// refused as unknown.
StoredTensors rename(const std::shared_ptr<const InputFile>& file, const Tensors& tensors, const ModelConfig& config,
                     const std::string& source) {
  StoredTensors stored;
  std::set<std::string> taken;
  for (const auto& spec : parameter_specs(config)) {
    const auto name = gguf_name(spec.name);
    const auto* tensor = find(tensors, name);
    if (tensor == nullptr) continue;
    taken.insert(name);
    SY_CHECK(!spec.is_expert() || spec.shape[0] <= kMostExperts, source, ": ", spec.shape[0], " experts in ", name,
             "; at most ", kMostExperts, " are taken");
    const auto whole = stored_in_gguf(file, *tensor);
    if (!spec.is_expert() || whole.shape.size() != spec.shape.size() || whole.shape[0] != spec.shape[0]) {
      stored[spec.name] = whole;
      continue;
    }
    for (int64_t expert = 0; expert < spec.shape[0]; ++expert)
      stored[expert_tensor_name(spec.name, expert)] = part_of(whole, expert);
  }
  for (const auto& [name, tensor] : tensors)
    if (!taken.contains(name)) stored[name] = stored_in_gguf(file, *tensor);
  return stored;
}

template <class T>
std::vector<T> list_at(const GgufHeader& header, const std::string& key, const std::string& source) {
  const auto found = header.values.find(key);
  if (found == header.values.end()) return {};
  const auto* list = std::get_if<std::vector<T>>(&found->second);
  SY_CHECK(list != nullptr, source, ": ", key, " is of another type than expected");
  return *list;
}

GgufVocabulary read_vocabulary_of(const GgufHeader& header, const std::string& source) {
  GgufVocabulary vocabulary;
  const std::string at = "tokenizer.ggml.";
  if (header.text(at + "model", source) != "t5") return vocabulary;
  vocabulary.tokens = list_at<std::string>(header, at + "tokens", source);
  vocabulary.scores = list_at<double>(header, at + "scores", source);
  vocabulary.types = list_at<int64_t>(header, at + "token_type", source);
  SY_CHECK(vocabulary.scores.size() == vocabulary.tokens.size() && vocabulary.types.size() == vocabulary.tokens.size(),
           source, ": ", vocabulary.tokens.size(), " tokens, but ", vocabulary.scores.size(), " scores and ",
           vocabulary.types.size(), " types");
  for (const int64_t byte : list_at<int64_t>(header, at + "precompiled_charsmap", source))
    vocabulary.normalization_rules.push_back(static_cast<char>(byte));
  vocabulary.add_space_prefix = header.integer(at + "add_space_prefix", source, 1) != 0;
  vocabulary.remove_extra_whitespaces = header.integer(at + "remove_extra_whitespaces", source, 1) != 0;
  vocabulary.unknown_id = header.integer(at + "unknown_token_id", source, 2);
  return vocabulary;
}

}  // namespace

GgufModel open_gguf(const std::filesystem::path& path) {
  const auto source = path.string();
  const auto file = std::make_shared<const InputFile>(path);
  const auto header = read_gguf_header(*file, source);
  Tensors tensors;
  for (const auto& tensor : header.tensors) tensors[tensor.name] = &tensor;
  GgufModel model{{source, config_of(header, tensors, source), {}}, read_vocabulary_of(header, source)};
  auto& [folder, config, stored] = model.files;
  stored = rename(file, tensors, config, source);
  plan_weights(config, stored, source);
  return model;
}

ParameterValuesList parameter_values(const ModelFiles& files) {
  ModelConfig config = files.config;
  ParameterValuesList list;
  for (const auto& sources : plan_weights(config, files.tensors, files.folder)) {
    auto& values = list.emplace_back();
    for (const auto* source : sources) values.push_back(*source);
  }
  return list;
}

ParameterValuesList parameter_values(const LoadedModel& model) {
  ModelWeights handles = model.weights;
  ParameterValuesList list;
  for (const auto& [spec, tensor] : list_parameters(model.config, handles)) list.push_back({stored_in_memory(*tensor)});
  return list;
}

}  // namespace switchyard
