#include "checkpoint/gguf_writer.h"

#include <algorithm>
#include <cmath>

#include "base/config.h"
#include "base/error.h"
#include "checkpoint/gguf_model.h"
#include "checkpoint/gguf_names.h"

namespace switchyard {
namespace {

constexpr int64_t kPiece = int64_t{1} << 20;  // values written at a time

enum ValueType : uint32_t { kUint8 = 0, kUint32 = 4, kInt32 = 5, kFloat32 = 6, kBool = 7, kString = 8, kArray = 9 };

template <class T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void append_text(std::string& out, const std::string& text) {
  append(out, uint64_t{text.size()});
  out += text;
}

GgufType stored_type(const ParameterSpec& spec, at::ScalarType dtype) {
  if (spec.is_wide || spec.shape.size() == 1 || dtype == at::kFloat) return GgufType::kF32;
  return dtype == at::kHalf ? GgufType::kF16 : GgufType::kBF16;
}

at::ScalarType dtype_of(GgufType type) {
  return type == GgufType::kF32 ? at::kFloat : type == GgufType::kF16 ? at::kHalf : at::kBFloat16;
}

// llama.cpp's T5 has ReLU, or the tanh form of GELU where there is a gate.
bool is_llama_t5(const ModelConfig& config) {
  return !config.has_sparse_layers() && config.activation == (config.gated ? Activation::kGeluNew : Activation::kRelu);
}

void add_model(GgufHead& head, const ModelConfig& config, at::ScalarType dtype) {
  const std::string name = !is_llama_t5(config)             ? kOwnArchitecture
                           : config.num_decoder_layers == 0 ? "t5encoder"
                                                            : "t5";
  const auto add = [&](const char* key, int64_t value) { head.add(name + "." + key, static_cast<uint32_t>(value)); };
  head.add("general.architecture", name);
  head.add("general.type", std::string("model"));
  head.add("general.file_type", uint32_t{dtype == at::kFloat ? 0u : dtype == at::kHalf ? 1u : 32u});
  add("context_length", 512);  // T5 has none; llama.cpp's default for it
  add("embedding_length", config.d_model);
  add("feed_forward_length", config.d_ff);
  add("block_count", config.num_encoder_layers);
  if (config.num_decoder_layers > 0) {
    add("decoder_block_count", config.num_decoder_layers);
    add("decoder_start_token_id", 0);
  }
  add("attention.head_count", config.num_heads);
  add("attention.key_length", config.d_kv);
  add("attention.value_length", config.d_kv);
  add("attention.relative_buckets_count", config.relative_attention_num_buckets);
  for (const char* key : {"attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon"})
    head.add(name + "." + key, static_cast<float>(config.layer_norm_epsilon));
  if (config.has_sparse_layers()) {
    add("expert_count", config.routing.num_experts);
    add("expert_used_count", config.routing.num_selected_experts);
  }
  head.add(kConfigKey, fields_to_json(config).dump());
}

void add_vocabulary(GgufHead& head, const GgufVocabulary& vocabulary) {
  if (vocabulary.tokens.empty()) return;
  const std::string at = "tokenizer.ggml.";
  head.add(at + "model", std::string("t5"));
  head.add(at + "pre", std::string("default"));
  head.add(at + "tokens", vocabulary.tokens);
  head.add(at + "scores", std::vector<float>(vocabulary.scores.begin(), vocabulary.scores.end()));
  head.add(at + "token_type", std::vector<int32_t>(vocabulary.types.begin(), vocabulary.types.end()));
  head.add(at + "add_space_prefix", vocabulary.add_space_prefix);
  head.add(at + "remove_extra_whitespaces", vocabulary.remove_extra_whitespaces);
  const auto& rules = vocabulary.normalization_rules;
  if (!rules.empty()) head.add(at + "precompiled_charsmap", std::vector<uint8_t>(rules.begin(), rules.end()));
  for (const auto& [key, id] : {std::pair{"eos_token_id", int64_t{1}}, std::pair{"padding_token_id", int64_t{0}},
                                std::pair{"unknown_token_id", vocabulary.unknown_id}})
    head.add(at + key, static_cast<uint32_t>(id));
  head.add(at + "add_bos_token", false);
  head.add(at + "add_eos_token", true);
}

void write_values(AtomicFile& file, const StoredTensor& values, at::ScalarType dtype) {
  const int64_t numel = values.numel();
  const auto buffer = read_tensor({dtype, {std::min(kPiece, numel)}, [](int64_t, const at::Tensor&) {}}, dtype);
  for (int64_t first = 0; first < numel; first += kPiece) {
    const auto piece = buffer.slice(0, 0, std::min(kPiece, numel - first));
    values.read(first, piece);
    file.write(piece.const_data_ptr(), piece.nbytes());
  }
}

}  // namespace

uint64_t gguf_padding(uint64_t size) { return (kGgufAlignment - size % kGgufAlignment) % kGgufAlignment; }

void GgufHead::begin(const std::string& key, uint32_t type) {
  append_text(pairs_, key);
  append(pairs_, type);
  ++num_pairs_;
}
void GgufHead::add(const std::string& key, uint32_t value) {
  begin(key, kUint32);
  append(pairs_, value);
}
void GgufHead::add(const std::string& key, float value) {
  begin(key, kFloat32);
  append(pairs_, value);
}
void GgufHead::add(const std::string& key, bool value) {
  begin(key, kBool);
  append(pairs_, uint8_t{value});
}
void GgufHead::add(const std::string& key, const std::string& value) {
  begin(key, kString);
  append_text(pairs_, value);
}

namespace {

template <class T>
void append_list(std::string& out, uint32_t type, const std::vector<T>& values) {
  append(out, type);
  append(out, uint64_t{values.size()});
  for (const auto& value : values) append(out, value);
}

}  // namespace

void GgufHead::add(const std::string& key, const std::vector<float>& values) {
  begin(key, kArray);
  append_list(pairs_, kFloat32, values);
}
void GgufHead::add(const std::string& key, const std::vector<int32_t>& values) {
  begin(key, kArray);
  append_list(pairs_, kInt32, values);
}
void GgufHead::add(const std::string& key, const std::vector<uint8_t>& values) {
  begin(key, kArray);
  append_list(pairs_, kUint8, values);
}
void GgufHead::add(const std::string& key, const std::vector<std::string>& values) {
  begin(key, kArray);
  append(pairs_, uint32_t{kString});
  append(pairs_, uint64_t{values.size()});
  for (const auto& value : values) append_text(pairs_, value);
}

void GgufHead::add_tensor(const std::string& name, const std::vector<int64_t>& shape, GgufType type) {
  append_text(tensors_, name);
  append(tensors_, static_cast<uint32_t>(shape.size()));
  uint64_t bytes = static_cast<uint64_t>(gguf_form(type).block_bytes);
  for (auto size = shape.rbegin(); size != shape.rend(); ++size) {
    append(tensors_, static_cast<uint64_t>(*size));
    bytes *= static_cast<uint64_t>(*size);
  }
  append(tensors_, static_cast<uint32_t>(type));
  append(tensors_, data_bytes_);
  data_bytes_ += bytes + gguf_padding(bytes);
  ++num_tensors_;
}

std::string GgufHead::bytes() const {
  std::string out = "GGUF";
  append(out, uint32_t{3});
  append(out, num_tensors_);
  append(out, num_pairs_);
  out += pairs_ + tensors_;
  out.append(gguf_padding(out.size()), '\0');
  return out;
}

void write_gguf(const std::filesystem::path& path, const ModelConfig& config, const ParameterValuesList& values,
                at::ScalarType dtype, const GgufVocabulary& vocabulary) {
  const auto specs = parameter_specs(config);
  GgufHead head;
  add_model(head, config, dtype);
  add_vocabulary(head, vocabulary);
  for (const auto& spec : specs) {
    const auto name = gguf_name(spec.name);
    SY_CHECK(
        !name.empty(), path.string(), ": GGUF has no name for ", spec.name,
        "; models with experts in attention or with an input table beside the shared one stay in model directories");
    head.add_tensor(name, spec.shape, stored_type(spec, dtype));
  }
  AtomicFile file(path);
  const auto bytes = head.bytes();
  file.write(bytes.data(), bytes.size());
  constexpr char kZeros[kGgufAlignment] = {};
  for (size_t n = 0; n < specs.size(); ++n) {
    const auto type = dtype_of(stored_type(specs[n], dtype));
    for (const auto& part : values.at(n)) write_values(file, part, type);
    file.write(kZeros, gguf_padding(static_cast<uint64_t>(specs[n].numel()) * c10::elementSize(type)));
  }
  file.commit();
}

}  // namespace switchyard
