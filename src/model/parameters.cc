#include "model/parameters.h"

#include <cmath>

namespace switchyard {
namespace {

// Collects parameters in order, naming and shaping each one once.
struct Lister {
  const ModelConfig& config;
  std::vector<NamedParameter> list;

  void add(std::string name, at::Tensor& tensor, std::vector<int64_t> shape, Initializer initializer, double stddev,
           bool is_expert = false) {
    const bool is_wide =
        shape.size() == 1 || name.find("router") != std::string::npos ||
        name.find("relative_attention_bias") != std::string::npos ||
        (is_expert && config.attention_expert_dtype == "fp32" && name.find(".SelfAttention.") != std::string::npos);
    list.push_back({{std::move(name), std::move(shape), initializer, stddev, is_expert, is_wide}, &tensor});
  }

  // Truncated normal with std sqrt(s / fan_in) (Switch §2.4); Mesh applies s to feed-forward, router and output
  // kernels.
  void add_scaled(std::string name, at::Tensor& tensor, std::vector<int64_t> shape, bool is_expert = false) {
    const double fan_in = static_cast<double>(shape.back());
    add(std::move(name), tensor, std::move(shape), Initializer::kTruncatedNormal,
        std::sqrt(config.initializer_scale / fan_in), is_expert);
  }

  void add_norm(const std::string& name, at::Tensor& tensor) {
    add(name + ".weight", tensor, {config.d_model}, Initializer::kOnes, 0.0);
  }

  // Names under `module`.router. Every layer's router draws from its own name's stream.
  void add_router(const std::string& module, RouterWeights& router, int64_t num_experts) {
    const auto& routing = config.routing;
    if (routing.router == "hash") return;
    add_scaled(module + ".router.classifier.weight", router.weight, {num_experts, config.d_model});
    if (routing.router_bias)
      add(module + ".router.classifier.bias", router.bias, {num_experts}, Initializer::kZeros, 0.0);
    if (routing.selection_bias_rate > 0.0) {
      add(module + ".router.selection_bias", router.selection_bias, {num_experts}, Initializer::kZeros, 0.0);
      list.back().spec.is_buffer = true;
    }
  }

  // Convention: Mesh. Scores are not divided by sqrt(d_kv), so q carries d_kv^-0.5 in its initial values.
  void add_attention(const std::string& prefix, AttentionWeights& weights, bool sparse = false) {
    const int64_t inner = config.inner_size(), num_experts = config.routing.num_experts;
    const double d_model = static_cast<double>(config.d_model);
    const std::string experts = sparse ? prefix + ".experts" : prefix;
    const auto shape =
        sparse ? std::vector<int64_t>{num_experts, inner, config.d_model} : std::vector<int64_t>{inner, config.d_model};
    if (sparse) add_router(prefix, weights.router, num_experts);
    add(experts + ".q.weight", weights.q, shape, Initializer::kNormal,
        1.0 / std::sqrt(d_model * static_cast<double>(config.d_kv)), sparse);
    add(experts + ".k.weight", weights.k, shape, Initializer::kNormal, 1.0 / std::sqrt(d_model), sparse);
    add(experts + ".v.weight", weights.v, shape, Initializer::kNormal, 1.0 / std::sqrt(d_model), sparse);
    add(prefix + ".o.weight", weights.o, {config.d_model, inner}, Initializer::kNormal,
        1.0 / std::sqrt(static_cast<double>(inner)));
  }

  // num_experts: 0 in a dense layer.
  void add_feed_forward(const std::string& layer, FeedForwardWeights& weights, int64_t num_experts) {
    // HF's names: T5 calls the module DenseReluDense, Switch calls it mlp in dense and sparse blocks.
    const std::string module = layer + (config.has_sparse_layers() ? ".mlp" : ".DenseReluDense");
    const bool sparse = num_experts > 0;
    const std::string experts = sparse ? module + ".experts" : module;
    const auto shape = [&](int64_t out, int64_t in) {
      return sparse ? std::vector<int64_t>{num_experts, out, in} : std::vector<int64_t>{out, in};
    };
    if (sparse) add_router(module, weights.router, num_experts);
    if (config.gated) {
      add_scaled(experts + ".wi_0.weight", weights.wi_0, shape(config.d_ff, config.d_model), sparse);
      add_scaled(experts + ".wi_1.weight", weights.wi_1, shape(config.d_ff, config.d_model), sparse);
    } else {
      add_scaled(experts + ".wi.weight", weights.wi, shape(config.d_ff, config.d_model), sparse);
    }
    add_scaled(experts + ".wo.weight", weights.wo, shape(config.d_model, config.d_ff), sparse);
    const int64_t shared = config.routing.shared_expert_d_ff;
    if (!sparse || shared == 0) return;
    const std::string dense = module + ".shared_expert";
    if (config.gated) {
      add_scaled(dense + ".wi_0.weight", weights.shared_wi_0, {shared, config.d_model});
      add_scaled(dense + ".wi_1.weight", weights.shared_wi_1, {shared, config.d_model});
    } else {
      add_scaled(dense + ".wi.weight", weights.shared_wi, {shared, config.d_model});
    }
    add_scaled(dense + ".wo.weight", weights.shared_wo, {config.d_model, shared});
  }

  void add_stack(const std::string& name, StackWeights& stack, bool is_decoder) {
    const int64_t num_layers = is_decoder ? config.num_decoder_layers : config.num_encoder_layers;
    stack.blocks.resize(static_cast<size_t>(num_layers));
    for (int64_t block = 0; block < num_layers; ++block) {
      auto& weights = stack.blocks[static_cast<size_t>(block)];
      const std::string prefix = name + ".block." + std::to_string(block) + ".layer.";
      add_attention(prefix + "0.SelfAttention", weights.self_attention, config.has_sparse_attention(is_decoder, block));
      if (block == 0 || config.relative_bias_every_layer)
        add(prefix + "0.SelfAttention.relative_attention_bias.weight",
            block == 0 ? stack.relative_attention_bias : weights.relative_attention_bias,
            {config.relative_attention_num_buckets, config.num_heads}, Initializer::kNormal,
            1.0 / std::sqrt(static_cast<double>(config.d_model)));  // Convention: HF; Mesh states no initialiser
      add_norm(prefix + "0.layer_norm", weights.self_attention_norm);
      if (is_decoder) {
        add_attention(prefix + "1.EncDecAttention", weights.cross_attention);
        add_norm(prefix + "1.layer_norm", weights.cross_attention_norm);
      }
      const std::string last = prefix + (is_decoder ? "2" : "1");
      const bool sparse = is_decoder ? config.is_sparse_decoder_layer(block) : config.is_sparse_encoder_layer(block);
      add_feed_forward(last, weights.feed_forward, sparse ? config.layer_num_experts(is_decoder, block) : 0);
      add_norm(last + ".layer_norm", weights.feed_forward_norm);
    }
    add_norm(name + ".final_layer_norm", stack.final_norm);
  }
};

}  // namespace

int64_t ParameterSpec::numel() const {
  int64_t product = 1;
  for (const int64_t size : shape) product *= size;
  return product;
}

std::vector<NamedParameter> list_parameters(const ModelConfig& config, ModelWeights& weights) {
  Lister lister{config, {}};
  lister.add("shared.weight", weights.shared, {config.vocab_size, config.d_model}, Initializer::kNormal, 1.0);
  lister.add_stack("encoder", weights.encoder, /*is_decoder=*/false);
  lister.add_stack("decoder", weights.decoder, /*is_decoder=*/true);
  if (!config.tie_output) lister.add_scaled("lm_head.weight", weights.lm_head, {config.vocab_size, config.d_model});
  return std::move(lister.list);
}

std::vector<ParameterSpec> parameter_specs(const ModelConfig& config) {
  ModelWeights unused;
  std::vector<ParameterSpec> specs;
  for (auto& parameter : list_parameters(config, unused)) specs.push_back(std::move(parameter.spec));
  return specs;
}

}  // namespace switchyard
