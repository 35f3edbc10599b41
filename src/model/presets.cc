#include <map>

#include "base/config.h"
#include "base/error.h"
#include "model/config.h"

namespace switchyard {
namespace {

struct Shape {
  int64_t d_model, d_ff, d_kv, num_heads, num_layers;  // num_layers in each stack
};

// T5 v1.0: ReLU, tied output, feed-forward kernels at Mesh's scale 1.0.
ModelConfig dense_t5(const Shape& shape) {
  ModelConfig config;
  config.d_model = shape.d_model;
  config.d_ff = shape.d_ff;
  config.d_kv = shape.d_kv;
  config.num_heads = shape.num_heads;
  config.num_encoder_layers = config.num_decoder_layers = shape.num_layers;
  config.initializer_scale = 1.0;
  return config;
}

// Every second feed-forward layer (blocks 1, 3, 5, ...) becomes `num_experts` experts of the dense layer's shape, so
// that the FLOPs of a token stay the dense model's. Scale 0.1: Switch §2.4.
ModelConfig with_experts(ModelConfig dense, int64_t num_experts, int64_t group_size) {
  dense.initializer_scale = 0.1;
  dense.encoder_sparse_step = dense.decoder_sparse_step = 2;
  dense.routing.num_experts = num_experts;
  dense.routing.group_size = group_size;
  return dense;
}

// T5.1.1 feed-forward and output: GEGLU, own output kernel.
ModelConfig with_geglu(ModelConfig config) {
  config.activation = Activation::kGeluNew;
  config.gated = true;
  config.tie_output = config.scale_output = false;
  return config;
}

constexpr Shape kBase{.d_model = 768, .d_ff = 3072, .d_kv = 64, .num_heads = 12, .num_layers = 12};
constexpr Shape kLarge{.d_model = 1024, .d_ff = 4096, .d_kv = 64, .num_heads = 16, .num_layers = 24};
constexpr Shape kMini{.d_model = 256, .d_ff = 1024, .d_kv = 64, .num_heads = 4, .num_layers = 4};
constexpr Shape kNano{.d_model = 128, .d_ff = 512, .d_kv = 32, .num_heads = 4, .num_layers = 2};
constexpr Shape kTiny{.d_model = 64, .d_ff = 128, .d_kv = 32, .num_heads = 2, .num_layers = 2};

// Switch Table 9 gives XXL 64 experts; the released model and the printed 395B parameters have 128.
ModelConfig switch_xxl() {
  auto config = with_experts(
      with_geglu(dense_t5({.d_model = 4096, .d_ff = 10240, .d_kv = 64, .num_heads = 64, .num_layers = 24})), 128, 4096);
  config.routing.eval_capacity_factor = 4.0;
  config.routing.min_expert_capacity = 2;
  return config;
}

// Switch Table 9 prints 32 heads; the released model has 30. Experts in every layer.
ModelConfig switch_c() {
  auto config = with_experts(dense_t5({.d_model = 2080, .d_ff = 6144, .d_kv = 64, .num_heads = 30, .num_layers = 15}),
                             2048, 2048);
  config.encoder_sparse_step = config.decoder_sparse_step = 1;
  config.tie_output = config.scale_output = false;
  config.routing.train_capacity_factor = 1.0;
  config.routing.min_expert_capacity = 2;
  return config;
}

// T5.1.1 Base with mT5's 250,112-row vocabulary.
ModelConfig mt5_base() {
  auto config = with_geglu(dense_t5({.d_model = 768, .d_ff = 2048, .d_kv = 64, .num_heads = 12, .num_layers = 12}));
  config.vocab_size = 250112;
  return config;
}

// Released shapes and the group sizes and capacity factors of their training configurations (Flaxformer's gin files).
std::map<std::string, ModelConfig> make_presets() {
  std::map<std::string, ModelConfig> presets;
  for (const int64_t num_experts : {8, 16, 32, 64, 128, 256})
    presets["switch-base-" + std::to_string(num_experts)] = with_experts(dense_t5(kBase), num_experts, 8192);
  presets["switch-large-128"] = with_experts(dense_t5(kLarge), 128, 4096);
  presets["switch-xxl"] = switch_xxl();
  presets["switch-c"] = switch_c();

  presets["t5-small"] = dense_t5({.d_model = 512, .d_ff = 2048, .d_kv = 64, .num_heads = 8, .num_layers = 6});
  presets["t5-base"] = dense_t5(kBase);
  presets["t5-large"] = dense_t5(kLarge);
  presets["t5-3b"] = dense_t5({.d_model = 1024, .d_ff = 16384, .d_kv = 128, .num_heads = 32, .num_layers = 24});
  presets["t5-11b"] = dense_t5({.d_model = 1024, .d_ff = 65536, .d_kv = 128, .num_heads = 128, .num_layers = 24});

  presets["mt5-base"] = mt5_base();
  presets["mswitch-base"] =
      with_experts(mt5_base(), 128, 8192);  // the paper does not say how many experts: as Switch-Base

  // The paper's MoE baseline (table 1): two experts a token, whose gates sum to 1 whatever is dropped (Mesh), and slots
  // for twice the even share of tokens. Mesh's default group.
  for (const int64_t num_experts : {2, 4, 8, 16, 32, 64, 128, 256}) {
    auto& config = presets["moe-base-" + std::to_string(num_experts)] =
        with_experts(dense_t5(kBase), num_experts, 1024);
    config.routing.num_selected_experts = 2;
    config.routing.gate_normalization = GateNormalization::kBeforeDrop;
    config.routing.train_capacity_factor = config.routing.eval_capacity_factor = 2.0;
  }

  presets["t5-mini"] = dense_t5(kMini);
  presets["switch-mini-8"] = with_experts(dense_t5(kMini), 8, 1024);
  // The quickstart's pair: minutes of training on a processor. Every feed-forward layer is sparse, and both keep Mesh's
  // scale 1.0: 0.1 makes large models stable, and this one learn more slowly (docs/results.md).
  presets["t5-nano"] = dense_t5(kNano);
  presets["switch-nano-8"] = with_experts(dense_t5(kNano), 8, 1024);
  presets["switch-nano-8"].encoder_sparse_step = presets["switch-nano-8"].decoder_sparse_step = 1;
  presets["switch-nano-8"].initializer_scale = 1.0;
  presets["t5-tiny"] = dense_t5(kTiny);
  presets["switch-tiny-4"] = with_experts(dense_t5(kTiny), 4, 1024);
  return presets;
}

}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const auto& [name, config] : make_presets()) names.push_back(name);
  return names;
}

ModelConfig preset(const std::string& name) {
  const auto presets = make_presets();
  const auto found = presets.find(name);
  if (found != presets.end()) return found->second;
  std::string known;
  for (const auto& each : preset_names()) known += (known.empty() ? "" : ", ") + each;
  throw Error(join("no preset is named \"", name.substr(0, 64), "\"", nearest_hint(name.substr(0, 64), preset_names()),
                   "; presets: ", known));
}

}  // namespace switchyard
