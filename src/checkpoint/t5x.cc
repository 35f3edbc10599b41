#include "checkpoint/t5x.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "base/config.h"
#include "base/error.h"
#include "base/files.h"
#include "checkpoint/byte_stream.h"
#include "checkpoint/model_tensors.h"
#include "checkpoint/msgpack.h"
#include "checkpoint/t5x_scanned.h"
#include "checkpoint/weight_names.h"
#include "checkpoint/zarr.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr char kFile[] = "checkpoint";

// The rest of a path below "target", or nullopt.
std::optional<std::string> below_target(const std::string& path) {
  for (const std::string prefix : {"optimizer/target/", "target/"})
    if (path.starts_with(prefix)) return path.substr(prefix.size());
  return std::nullopt;
}

NamedTensors read_arrays(const fs::path& path) {
  NamedTensors arrays;
  const fs::path file = fs::is_directory(path) ? path / kFile : path;
  if (fs::exists(file)) {
    const MappedFile mapping(file);
    const auto form = is_gzip(mapping.bytes()) ? ByteStream::Form::kDeflated : ByteStream::Form::kPlain;
    ByteStream bytes(mapping.bytes(), form, file.string());
    for (auto& [name, array] :
         read_msgpack_arrays(bytes, file.string(), [](const auto& each) { return below_target(each).has_value(); }))
      arrays[*below_target(name)] = std::move(array);
  }
  if (!fs::is_directory(path)) return arrays;
  for (const auto& entry : fs::directory_iterator(path)) {
    std::string name = entry.path().filename().string();
    if (!name.starts_with("target.") || !fs::exists(entry.path() / ".zarray")) continue;
    std::replace(name.begin(), name.end(), '.', '/');
    arrays[*below_target(name)] = read_zarr(entry.path());
  }
  return arrays;
}

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> parts(1);
  for (const char letter : path)
    if (letter == '/')
      parts.emplace_back();
    else
      parts.back() += letter;
  return parts;
}

// [in, out] to [out, in]; attention kernels that keep heads as an axis are flattened first.
at::Tensor transposed(const at::Tensor& kernel) { return kernel.dim() == 2 ? kernel.t() : at::Tensor(); }

// One array's place among HF's names: whole components are compared, never parts of names.
class Renamer {
 public:
  explicit Renamer(bool is_sparse) : dense_module_(is_sparse ? "mlp" : "DenseReluDense") {}

  // Adds what `array` becomes; false if its path is unknown or its rank wrong.
  bool add(const std::string& path, const at::Tensor& array) {
    const auto parts = split(path);
    if (path == "token_embedder/embedding") return put("shared.weight", array, 2);
    if (path == "decoder/logits_dense/kernel") return put("lm_head.weight", transposed(array), 2);
    if (parts.size() < 3 || (parts[0] != "encoder" && parts[0] != "decoder")) return false;
    const std::string& stack = parts[0];
    if (path == stack + "/relpos_bias/rel_embedding")
      return put(stack + ".block.0.layer.0.SelfAttention.relative_attention_bias.weight", transposed(array), 2);
    if (path == stack + "/" + stack + "_norm/scale") return put(stack + ".final_layer_norm.weight", array, 1);
    int64_t layer = -1;
    const std::string prefix = "layers_";
    const auto& number = parts[1];
    if (!number.starts_with(prefix)) return false;
    const auto parsed = std::from_chars(number.data() + prefix.size(), number.data() + number.size(), layer);
    if (parsed.ec != std::errc{} || parsed.ptr != number.data() + number.size() || layer < 0 || layer >= 4096)
      return false;
    const bool is_decoder = stack == "decoder";
    const std::string block = stack + ".block." + std::to_string(layer) + ".layer.";
    const std::vector<std::string> rest(parts.begin() + 2, parts.end());
    if (rest == std::vector<std::string>{"relpos_bias", "rel_embedding"})
      return put(block + "0.SelfAttention.relative_attention_bias.weight", transposed(array), 2);
    if (rest.size() == 2 && rest[1] == "scale") return add_norm(block, rest[0], is_decoder, array);
    if (rest[0] == "mlp")
      return add_feed_forward(block + (is_decoder ? "2" : "1"), {rest.begin() + 1, rest.end()}, array);
    return add_attention(block, rest, is_decoder, array);
  }

  NamedTensors tensors;

 private:
  bool put(const std::string& name, const at::Tensor& tensor, int64_t rank) {
    return tensor.defined() && tensor.dim() == rank && tensors.emplace(name, tensor).second;
  }
  bool add_norm(const std::string& block, const std::string& name, bool is_decoder, const at::Tensor& array) {
    const std::pair<const char*, const char*> encoder[] = {{"pre_attention_layer_norm", "0"},
                                                           {"pre_mlp_layer_norm", "1"}};
    const std::pair<const char*, const char*> decoder[] = {
        {"pre_self_attention_layer_norm", "0"}, {"pre_cross_attention_layer_norm", "1"}, {"pre_mlp_layer_norm", "2"}};
    for (const auto& [known, layer] :
         is_decoder ? std::span<const std::pair<const char*, const char*>>(decoder) : encoder)
      if (name == known) return put(block + layer + ".layer_norm.weight", array, 1);
    return false;
  }
  bool add_attention(const std::string& block, const std::vector<std::string>& rest, bool is_decoder,
                     const at::Tensor& array) {
    if (rest.size() != 3 || rest[2] != "kernel") return false;
    std::string module;
    if (rest[0] == (is_decoder ? "self_attention" : "attention"))
      module = "0.SelfAttention.";
    else if (is_decoder && rest[0] == "encoder_decoder_attention")
      module = "1.EncDecAttention.";
    else
      return false;
    const std::pair<const char*, const char*> products[] = {{"query", "q"}, {"key", "k"}, {"value", "v"}, {"out", "o"}};
    for (const auto& [known, letter] : products) {
      if (rest[1] != known) continue;
      auto kernel = array;
      if (kernel.dim() == 3)
        kernel = letter[0] == 'o' ? kernel.flatten(0, 1) : kernel.flatten(1, 2);  // heads as an axis
      return put(block + module + letter + ".weight", transposed(kernel), 2);
    }
    return false;
  }
  bool add_feed_forward(const std::string& layer, const std::vector<std::string>& rest, const at::Tensor& array) {
    const auto is_product = [](const std::string& name) {
      return name == "wi" || name == "wi_0" || name == "wi_1" || name == "wo";
    };
    if (rest.size() == 2 && is_product(rest[0]) && rest[1] == "kernel")
      return put(layer + "." + dense_module_ + "." + rest[0] + ".weight", transposed(array), 2);
    if (rest == std::vector<std::string>{"router", "router_weights", "w", "kernel"})
      return put(layer + ".mlp.router.classifier.weight", transposed(array), 2);
    if (rest == std::vector<std::string>{"router", "router_weights", "w", "bias"})
      return put(layer + ".mlp.router.classifier.bias", array, 1);
    if (rest.size() != 3 || rest[0] != "expert" || !is_product(rest[1]) || rest[2] != "kernel" || array.dim() != 3)
      return false;
    for (int64_t expert = 0; expert < array.size(0); ++expert)
      if (!put(expert_tensor_name(layer + ".mlp.experts." + rest[1] + ".weight", expert), array.select(0, expert).t(),
               2))
        return false;
    return true;
  }

  std::string dense_module_;
};

// Everything that shapes show.
ModelConfig infer_shape(const NamedTensors& arrays, const std::string& source) {
  const auto size_of = [&](const std::string& path, int64_t axis) {
    const auto found = arrays.find(path);
    SY_CHECK(found != arrays.end() && found->second.dim() > axis, source, ": ", path,
             " is missing or has another rank; is this a T5 or "
             "Switch checkpoint of T5X?");
    return found->second.size(axis);
  };
  const auto has = [&](const std::string& path) { return arrays.contains(path); };
  ModelConfig config;
  config.vocab_size = size_of("token_embedder/embedding", 0);
  config.d_model = size_of("token_embedder/embedding", 1);
  config.relative_bias_every_layer = has("encoder/layers_0/relpos_bias/rel_embedding");
  const std::string table = config.relative_bias_every_layer ? "encoder/layers_0/relpos_bias/rel_embedding"
                                                             : "encoder/relpos_bias/rel_embedding";
  config.num_heads = size_of(table, 0);
  config.relative_attention_num_buckets = size_of(table, 1);
  config.tie_output = config.scale_output = !has("decoder/logits_dense/kernel");
  SY_CHECK(config.num_heads > 0 && config.d_model > 0, source, ": an array is empty");
  const auto& query = arrays.find("encoder/layers_0/attention/query/kernel");
  SY_CHECK(query != arrays.end(), source, ": encoder/layers_0/attention/query/kernel is missing");
  config.d_kv = query->second.numel() / config.d_model / config.num_heads;

  const auto count_layers = [&](const std::string& stack, std::vector<int64_t>& sparse) {
    int64_t count = 0;
    while (has(join(stack, "/layers_", count, "/pre_mlp_layer_norm/scale"))) {
      if (has(join(stack, "/layers_", count, "/mlp/router/router_weights/w/kernel"))) sparse.push_back(count);
      ++count;
    }
    return count;
  };
  config.num_encoder_layers = count_layers("encoder", config.sparse_encoder_layers);
  config.num_decoder_layers = count_layers("decoder", config.sparse_decoder_layers);
  for (const auto& [path, array] : arrays) {
    const auto parts = split(path);
    if (parts.size() < 4 || parts[2] != "mlp") continue;
    if (parts[3] == "router" && parts.back() == "kernel" && array.dim() == 2)
      config.routing.num_experts = array.size(1);
    if (parts[3] == "router" && parts.back() == "bias") config.routing.router_bias = true;
    const auto& product = parts[parts.size() - 2];
    if (product == "wi_0") config.gated = true;
    if (product == "wi" || product == "wi_0") config.d_ff = array.size(-1);
  }
  config.activation =
      config.gated ? Activation::kGeluNew : Activation::kRelu;  // T5.1.1 and Switch-XXL; v1.0 and Switch
  return config;
}

bool same_shape(const ModelConfig& left, const ModelConfig& right) {
  const auto layers = [](const ModelConfig& config) {
    std::set<int64_t> sparse;
    for (int64_t block = 0; block < config.num_encoder_layers; ++block)
      if (config.is_sparse_encoder_layer(block)) sparse.insert(block);
    for (int64_t block = 0; block < config.num_decoder_layers; ++block)
      if (config.is_sparse_decoder_layer(block)) sparse.insert(10000 + block);
    return sparse;
  };
  const auto sizes = [](const ModelConfig& config) {
    return std::vector<int64_t>{config.vocab_size,
                                config.d_model,
                                config.d_ff,
                                config.d_kv,
                                config.num_heads,
                                config.num_encoder_layers,
                                config.num_decoder_layers,
                                config.gated,
                                config.tie_output,
                                config.relative_bias_every_layer,
                                config.routing.num_experts};
  };
  return sizes(left) == sizes(right) && layers(left) == layers(right);
}

ModelConfig infer_config(const NamedTensors& arrays, const std::string& source) {
  auto config = infer_shape(arrays, source);
  // The released shapes first; "moe-..." and small presets of equal shape come after them.
  auto names = preset_names();
  std::stable_partition(names.begin(), names.end(), [](const auto& name) { return name.starts_with("switch-"); });
  for (const auto& name : names)
    if (auto known = preset(name); same_shape(known, config)) return known;
  return config;
}

}  // namespace

bool is_t5x_checkpoint(const fs::path& path) {
  if (fs::is_directory(path))
    return fs::exists(path / kFile) || fs::exists(path / "target.token_embedder.embedding" / ".zarray");
  if (!fs::is_regular_file(path)) return false;
  const MappedFile file(path);
  const auto bytes = file.bytes();
  // A map at the top: msgpack; safetensors, ZIP and JSON begin otherwise.
  return is_gzip(bytes) || (!bytes.empty() && (std::to_integer<int>(bytes[0]) & 0xf0) == 0x80);
}

LoadedModel import_t5x(const fs::path& path, at::ScalarType dtype) {
  const std::string source = path.string();
  auto arrays = read_arrays(path);
  unstack_scanned_layers(arrays, source);
  SY_CHECK(!arrays.empty(), source, ": no arrays below \"target\"; expected a T5X checkpoint");
  LoadedModel model;
  model.config = infer_config(arrays, source);
  validate(model.config);
  Renamer renamer(model.config.has_sparse_layers());
  std::string unknown;
  for (const auto& [name, array] : arrays)
    if (!renamer.add(name, array) && unknown.size() < 2000) unknown += "\n  " + name.substr(0, 200);
  SY_CHECK(unknown.empty(), source, ": arrays that fit no T5 or Switch model:", unknown);
  StoredTensors tensors;
  for (const auto& [name, tensor] : renamer.tensors) tensors.emplace(name, stored_in_memory(tensor));
  model.weights = weights_from(model.config, tensors, dtype, at::kCPU, source);
  return model;
}

}  // namespace switchyard
