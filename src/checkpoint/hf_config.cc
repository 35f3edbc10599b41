#include "checkpoint/hf_config.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "base/error.h"

namespace switchyard {
namespace {

constexpr char kBlock[] = "switchyard";

// Reads keys of one JSON object, naming the file in every message.
class Keys {
 public:
  Keys(const Json& json, const std::string& source) : json_(json), source_(source) {}

  bool has(const char* key) const { return json_.contains(key) && !json_.at(key).is_null(); }
  // Sets `out` if the key is there; returns whether it was.
  template <class T>
  bool read(const char* key, T& out) const {
    if (!has(key)) return false;
    config_detail::read_value(json_.at(key), source_ + ": " + key, out);
    return true;
  }
  template <class T>
  void require(const char* key, T& out) const {
    SY_CHECK(read(key, out), source_, ": \"", key, "\" is missing");
  }
  // A token id that the program takes as fixed (T5's), given as a number or a list that begins with it.
  void expect_id(const char* key, int64_t expected) const {
    if (!has(key)) return;
    const Json& value = json_.at(key);
    const Json& id = value.is_array() && value.size() == 1 ? value.front() : value;
    SY_CHECK(id == expected, source_, ": ", key, " is ", value.dump().substr(0, 64), ", expected ", expected,
             " (T5's ids: pad 0, eos 1, decoder start 0)");
  }
  const std::string& source() const { return source_; }

 private:
  const Json& json_;
  const std::string& source_;
};

// HF's activation names (ACT2FN) to ours; "gelu" is the erf form there too.
Activation activation_from_hf(const std::string& name, const std::string& source) {
  if (const auto known = from_word<Activation>(name)) return *known;
  if (name == "gelu_pytorch_tanh") return Activation::kGeluNew;
  if (name == "swish") return Activation::kSilu;
  throw Error(join(source, ": activation \"", name.substr(0, 64),
                   "\" is not supported; expected relu, gelu, gelu_new or silu, also as gated-..."));
}

// "relu", "gated-gelu", ...; "gated-gelu" means the tanh form (HF, "for backwards compatibility").
void read_feed_forward(const std::string& name, const std::string& source, ModelConfig& config) {
  config.gated = name.starts_with("gated-");
  const std::string act = config.gated ? name.substr(6) : name;
  config.activation = activation_from_hf(config.gated && act == "gelu" ? "gelu_new" : act, source);
}

// Block numbers of the sparse feed-forward layers in the file.
std::set<int64_t> sparse_blocks_of(const std::string& stack, const std::vector<std::string>& tensor_names) {
  const std::string begin = stack + ".block.";
  std::set<int64_t> blocks;
  for (const auto& name : tensor_names) {
    if (!name.starts_with(begin) ||
        (!name.ends_with(".mlp.router.classifier.weight") && name.find(".mlp.experts.expert_0.") == std::string::npos))
      continue;
    int64_t block = -1;
    const auto result = std::from_chars(name.data() + begin.size(), name.data() + name.size(), block);
    if (result.ec == std::errc{} && block >= 0) blocks.insert(block);
  }
  return blocks;
}

// Writes positions as a step where a step gives them, else as a list.
void set_sparse_layers(const std::set<int64_t>& blocks, int64_t num_layers, int64_t& step, std::vector<int64_t>& list) {
  step = 0;
  list.clear();
  if (blocks.empty()) return;
  const int64_t candidate = *blocks.begin() + 1;
  std::set<int64_t> by_step;
  for (int64_t block = candidate - 1; block < num_layers; block += candidate) by_step.insert(block);
  if (by_step == blocks)
    step = candidate;
  else
    list.assign(blocks.begin(), blocks.end());
}

std::set<int64_t> sparse_blocks(const ModelConfig& config, bool is_decoder) {
  std::set<int64_t> blocks;
  const int64_t num_layers = is_decoder ? config.num_decoder_layers : config.num_encoder_layers;
  for (int64_t block = 0; block < num_layers; ++block)
    if (is_decoder ? config.is_sparse_decoder_layer(block) : config.is_sparse_encoder_layer(block))
      blocks.insert(block);
  return blocks;
}

void read_sparse_layers(const std::vector<std::string>& tensor_names, ModelConfig& config) {
  const auto encoder = sparse_blocks_of("encoder", tensor_names), decoder = sparse_blocks_of("decoder", tensor_names);
  // The file's layers are what there is, whatever the configuration says.
  if (encoder != sparse_blocks(config, false) || decoder != sparse_blocks(config, true))
    config.sparse_layout = SparseLayout::kStep;
  if (encoder != sparse_blocks(config, false))
    set_sparse_layers(encoder, config.num_encoder_layers, config.encoder_sparse_step, config.sparse_encoder_layers);
  if (decoder != sparse_blocks(config, true))
    set_sparse_layers(decoder, config.num_decoder_layers, config.decoder_sparse_step, config.sparse_decoder_layers);
  if (encoder.empty() && decoder.empty() && config.encoder_attention_sparse_step == 0 &&
      config.decoder_attention_sparse_step == 0) {
    config.encoder_sparse_step = config.decoder_sparse_step = config.routing.num_experts = 0;
    config.sparse_encoder_layers.clear();
    config.sparse_decoder_layers.clear();
  }
}

// Whether HF derives these positions from a count: step = layers // count, block % step == 1.
bool hf_derives(const std::set<int64_t>& blocks, int64_t num_layers, int64_t count) {
  const int64_t step = num_layers / count;
  for (int64_t block = 0; block < num_layers; ++block) {
    const bool sparse = step > 0 && (block % step == 1 || step == 1);
    if (sparse != blocks.contains(block)) return false;
  }
  return true;
}

// The count from which HF derives exactly these positions, if there is one, else their number; 0 there makes block 1
// sparse all the same, layers + 1 gives step 0 and with it none.
int64_t hf_sparse_count(const std::set<int64_t>& blocks, int64_t num_layers) {
  const auto size = static_cast<int64_t>(blocks.size());
  if (size > 0 && hf_derives(blocks, num_layers, size)) return size;
  for (int64_t count = 1; count <= num_layers + 1; ++count)
    if (hf_derives(blocks, num_layers, count)) return count;
  return size;
}

bool has_hf_sparse_count(const std::set<int64_t>& blocks, int64_t num_layers) {
  const int64_t count = hf_sparse_count(blocks, num_layers);
  return count > 0 && hf_derives(blocks, num_layers, count);
}

// T5EncoderModel and the like.
bool is_encoder_alone(const Json& json) {
  const auto names = json.value("architectures", Json::array());
  return names.is_array() && names.size() == 1 && names.front().is_string() &&
         names.front().get_ref<const std::string&>().ends_with("EncoderModel");
}

void read_block(const Json& json, const std::string& source, ModelConfig& config) {
  SY_CHECK(json.at(kBlock).is_object(), source, ": \"", kBlock, "\" is not an object");
  ConfigDocument document;
  document.sections[kBlock] = json.at(kBlock);
  for (const auto& [key, value] : json.at(kBlock).items()) document.places[std::string(kBlock) + "." + key] = source;
  read_section(config, document, kBlock);
}

void read_t5(const Keys& keys, bool has_block, const std::string& model_type, ModelConfig& config) {
  std::string feed_forward = model_type == "t5" ? "relu" : "gated-gelu", act;
  if (keys.read("feed_forward_proj", feed_forward) || !has_block)
    read_feed_forward(feed_forward, keys.source(), config);
  if (keys.read("dense_act_fn", act)) config.activation = activation_from_hf(act, keys.source());
  keys.read("is_gated_act", config.gated);
  // HF ties the output in this family whatever the config says, unless the file has another head. tie_word_embeddings
  // tells whether T5 scales; a file saved by HF itself says so under scale_decoder_outputs. mT5 never scales. umT5 does
  // as its file says; HF 5.23 scales whatever the file says, which published files (tied: false) are not made for.
  bool scale = true;
  keys.read("tie_word_embeddings", scale);
  keys.read("scale_decoder_outputs", scale);
  config.scale_output = scale && model_type != "mt5";
  config.relative_bias_every_layer = model_type == "umt5";
  config.routing.num_experts = 0;
  if (!has_block) config.initializer_scale = 1.0;  // Mesh's, for dense models
}

void read_switch(const Keys& keys, bool has_block, ModelConfig& config) {
  if (!has_block) {
    std::string act = "relu";
    keys.read("dense_act_fn", act);
    read_feed_forward(act, keys.source(), config);
  }
  bool tie = true;
  keys.read("tie_word_embeddings", tie);
  config.scale_output = tie;
  if (!has_block) config.tie_output = tie;
  auto& routing = config.routing;
  keys.require("num_experts", routing.num_experts);
  keys.read("router_bias", routing.router_bias);
  keys.read("router_jitter_noise", routing.jitter_noise);
  keys.read("router_aux_loss_coef", routing.load_balance_loss_coef);
  keys.read("router_z_loss_coef", routing.router_z_loss_coef);
  if (!has_block) {  // HF's convention: each sequence is a group with a fixed number of slots
    keys.require("expert_capacity", routing.expert_capacity);
    SY_CHECK(routing.expert_capacity > 0, keys.source(), ": expert_capacity is ", routing.expert_capacity,
             ", expected at least 1");
    routing.group_size = 0;
  }
}

}  // namespace

ModelConfig config_from_hf(const Json& json, const std::string& source, const std::vector<std::string>& tensor_names) {
  SY_CHECK(json.is_object(), source, ": expected a JSON object");
  const Keys keys(json, source);
  std::string model_type;
  keys.require("model_type", model_type);
  SY_CHECK(model_type == "t5" || model_type == "mt5" || model_type == "umt5" || model_type == "switch_transformers",
           source, ": model_type is \"", model_type.substr(0, 64), "\", expected t5, mt5, umt5 or switch_transformers");
  keys.expect_id("pad_token_id", 0);
  keys.expect_id("eos_token_id", 1);
  keys.expect_id("decoder_start_token_id", 0);

  ModelConfig config;
  config.dropout_rate = 0.1;
  const bool has_block = keys.has(kBlock);
  if (has_block) read_block(json, source, config);
  keys.require("vocab_size", config.vocab_size);
  keys.require("d_model", config.d_model);
  keys.require("d_ff", config.d_ff);
  keys.require("d_kv", config.d_kv);
  keys.require("num_heads", config.num_heads);
  keys.require("num_layers", config.num_encoder_layers);
  config.num_decoder_layers = config.num_encoder_layers;
  keys.read("num_decoder_layers", config.num_decoder_layers);
  const bool is_encoder = is_encoder_alone(json);
  if (is_encoder) config.num_decoder_layers = 0;  // whatever the rest says: T5EncoderModel keeps T5's keys
  keys.read("relative_attention_num_buckets", config.relative_attention_num_buckets);
  keys.read("relative_attention_max_distance", config.relative_attention_max_distance);
  keys.read("layer_norm_epsilon", config.layer_norm_epsilon);
  keys.read("dropout_rate", config.dropout_rate);
  if (model_type == "switch_transformers")
    read_switch(keys, has_block, config);
  else
    read_t5(keys, has_block, model_type, config);
  SY_CHECK(config.num_encoder_layers > 0 && config.num_encoder_layers <= 4096 &&
               (config.num_decoder_layers > 0 || is_encoder) && config.num_decoder_layers <= 4096,
           source, ": ", config.num_encoder_layers, " and ", config.num_decoder_layers, " layers, expected 1 to 4096");
  read_sparse_layers(tensor_names, config);
  try {
    validate_stored(config);
  } catch (const Error& error) {
    throw Error(join(source, ": ", error.what()));
  }
  return config;
}

Json config_to_hf(const ModelConfig& config, const std::string& dtype) {
  const bool is_switch = config.has_sparse_layers();
  const char* const model_type = is_switch ? "switch_transformers" : config.relative_bias_every_layer ? "umt5" : "t5";
  const bool is_encoder = config.num_decoder_layers == 0;
  const std::string family = is_switch ? "SwitchTransformers" : config.relative_bias_every_layer ? "UMT5" : "T5";
  // HF's T5 reads "gated-gelu" as the tanh form, and a dense_act_fn beside it as the last word.
  const std::string act =
      config.gated && config.activation == Activation::kGeluNew ? "gelu" : to_word(config.activation);
  const std::string feed_forward = (config.gated ? "gated-" : "") + act;
  Json json = {
      {"architectures", {family + (is_encoder ? "EncoderModel" : "ForConditionalGeneration")}},
      {"model_type", model_type},
      {"is_encoder_decoder", !is_encoder},
      {"vocab_size", config.vocab_size},
      {"d_model", config.d_model},
      {"d_kv", config.d_kv},
      {"d_ff", config.d_ff},
      {"num_heads", config.num_heads},
      {"num_layers", config.num_encoder_layers},
      {"num_decoder_layers", config.num_decoder_layers},
      {"relative_attention_num_buckets", config.relative_attention_num_buckets},
      {"relative_attention_max_distance", config.relative_attention_max_distance},
      {"layer_norm_epsilon", config.layer_norm_epsilon},
      {"dropout_rate", config.dropout_rate},
      {"initializer_factor", 1.0},
      {"tie_word_embeddings", config.scale_output},
      {"pad_token_id", 0},
      {"eos_token_id", 1},
      {"decoder_start_token_id", 0},
      {"use_cache", true},
      {"dtype", dtype},
  };
  if (is_switch) {
    const auto& routing = config.routing;
    const int64_t group = routing.group_size > 0 ? routing.group_size : 512;
    json["dense_act_fn"] = feed_forward;
    json["num_experts"] = routing.num_experts;
    json["expert_capacity"] = expert_capacity(routing, group, /*training=*/false);
    json["num_sparse_encoder_layers"] = hf_sparse_count(sparse_blocks(config, false), config.num_encoder_layers);
    json["num_sparse_decoder_layers"] = hf_sparse_count(sparse_blocks(config, true), config.num_decoder_layers);
    json["router_bias"] = routing.router_bias;
    json["router_dtype"] = "float32";
    json["router_jitter_noise"] = routing.jitter_noise;
    json["router_aux_loss_coef"] = routing.load_balance_loss_coef;
    json["router_z_loss_coef"] = routing.router_z_loss_coef;
    json["router_ignore_padding_tokens"] = true;
  } else {
    json["feed_forward_proj"] = feed_forward;
    json["dense_act_fn"] = to_word(config.activation);
    json["is_gated_act"] = config.gated;
  }
  if (json["model_type"] == "t5") {  // where HF says both
    json["tie_word_embeddings"] = config.tie_output || config.scale_output;
    json["scale_decoder_outputs"] = config.scale_output;
  }
  json[kBlock] = fields_to_json(config);
  return json;
}

std::vector<std::string> beyond_hf(const ModelConfig& config) {
  std::vector<std::string> parts;
  if (!config.has_sparse_layers()) return parts;
  const auto& routing = config.routing;
  const auto add_if = [&](bool beyond, const std::string& part) {
    if (beyond) parts.push_back(part);
  };
  add_if(routing.router != RouterKind::kTopK, std::string("router ") + to_word(routing.router));
  add_if(routing.num_selected_experts > 1, std::to_string(routing.num_selected_experts) + " experts a token");
  add_if(routing.router_score != RouterScore::kSoftmax, std::string(to_word(routing.router_score)) + " gates");
  add_if(routing.selection_bias_rate > 0, "a bias for choosing experts");
  add_if(routing.drop_priority == DropPriority::kBatch || routing.drop_priority == DropPriority::kExpert,
         "slots by probability");
  add_if(routing.shared_expert_d_ff > 0, "a shared expert");
  add_if(config.gated, "gated experts");
  add_if(config.encoder_attention_sparse_step > 0 || config.decoder_attention_sparse_step > 0, "experts in attention");
  add_if(!config.encoder_num_experts.empty() || !config.decoder_num_experts.empty(),
         "different numbers of experts by layer");
  for (const bool decoder : {false, true}) {
    const auto blocks = sparse_blocks(config, decoder);
    const int64_t layers = decoder ? config.num_decoder_layers : config.num_encoder_layers;
    add_if(!has_hf_sparse_count(blocks, layers),
           std::string("the sparse blocks of the ") + (decoder ? "decoder" : "encoder"));
  }
  return parts;
}

}  // namespace switchyard
