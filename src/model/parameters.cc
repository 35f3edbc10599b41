#include "model/parameters.h"

#include <cmath>
#include <map>

#include "base/error.h"

namespace switchyard {
namespace {

// What Lister::add is told of a parameter beyond its name; the rest follows from the role.
struct Form {
  std::vector<int64_t> shape;  // of one expert where `num_experts` is set
  Role role;
  int64_t num_experts = 0;   // 0: no expert axis
  int64_t tensor_axis = -1;  // of `shape`
  int64_t tensor_unit = 1;
};

// Collects parameters in order, naming and shaping each one once.
struct Lister {
  const ModelConfig& config;
  std::vector<NamedParameter> list;

  void add(std::string name, at::Tensor& tensor, const Form& form, Initializer initializer, double stddev) {
    const bool is_expert = form.num_experts > 0;
    ParameterSpec spec{.name = std::move(name),
                       .shape = form.shape,
                       .role = form.role,
                       .expert_axis = is_expert ? 0 : -1,
                       .tensor_axis = form.tensor_axis,
                       .tensor_unit = form.tensor_unit,
                       .initializer = initializer,
                       .stddev = stddev,
                       .is_wide = is_wide(form)};
    if (is_expert) {
      spec.shape.insert(spec.shape.begin(), form.num_experts);
      if (spec.tensor_axis >= 0) ++spec.tensor_axis;
    }
    list.push_back({std::move(spec), &tensor});
  }

  bool is_wide(const Form& form) const {
    switch (form.role) {
      case Role::kPositionBias:
      case Role::kNorm:
      case Role::kRouter:
      case Role::kRouterBias:
      case Role::kSelectionBias:
        return true;
      case Role::kAttention:
        return form.num_experts > 0 && config.attention_expert_dtype == PartDtype::kFp32;
      case Role::kEmbedding:
      case Role::kOutput:
      case Role::kFeedForward:
        return false;
    }
    return false;
  }

  // Truncated normal with std sqrt(s / fan_in) (Switch §2.4); Mesh applies s to feed-forward, router and output
  // kernels.
  void add_scaled(std::string name, at::Tensor& tensor, const Form& form) {
    const double fan_in = static_cast<double>(form.shape.back());
    add(std::move(name), tensor, form, Initializer::kTruncatedNormal, std::sqrt(config.initializer_scale / fan_in));
  }

  void add_norm(const std::string& name, at::Tensor& tensor) {
    add(name + ".weight", tensor, {.shape = {config.d_model}, .role = Role::kNorm}, Initializer::kOnes, 0.0);
  }

  // Names under `module`.router. Every layer's router draws from its own name's stream.
  void add_router(const std::string& module, RouterWeights& router, int64_t num_experts) {
    const auto& routing = config.routing;
    if (routing.router == RouterKind::kHash) return;
    add_scaled(module + ".router.classifier.weight", router.weight,
               {.shape = {num_experts, config.d_model}, .role = Role::kRouter});
    if (routing.router_bias)
      add(module + ".router.classifier.bias", router.bias, {.shape = {num_experts}, .role = Role::kRouterBias},
          Initializer::kZeros, 0.0);
    if (routing.selection_bias_rate > 0.0)
      add(module + ".router.selection_bias", router.selection_bias,
          {.shape = {num_experts}, .role = Role::kSelectionBias}, Initializer::kZeros, 0.0);
  }

  // Convention: Mesh. Scores are not divided by sqrt(d_kv), so q carries d_kv^-0.5 in its initial values.
  void add_attention(const std::string& prefix, AttentionWeights& weights, bool sparse = false) {
    const int64_t inner = config.inner_size();
    const double d_model = static_cast<double>(config.d_model);
    const std::string experts = sparse ? prefix + ".experts" : prefix;
    const Form in{.shape = {inner, config.d_model},
                  .role = Role::kAttention,
                  .num_experts = sparse ? config.routing.num_experts : 0,
                  .tensor_axis = 0,
                  .tensor_unit = config.d_kv};
    const Form out{
        .shape = {config.d_model, inner}, .role = Role::kAttention, .tensor_axis = 1, .tensor_unit = config.d_kv};
    if (sparse) add_router(prefix, weights.router, config.routing.num_experts);
    add(experts + ".q.weight", weights.q, in, Initializer::kNormal,
        1.0 / std::sqrt(d_model * static_cast<double>(config.d_kv)));
    add(experts + ".k.weight", weights.k, in, Initializer::kNormal, 1.0 / std::sqrt(d_model));
    add(experts + ".v.weight", weights.v, in, Initializer::kNormal, 1.0 / std::sqrt(d_model));
    add(prefix + ".o.weight", weights.o, out, Initializer::kNormal, 1.0 / std::sqrt(static_cast<double>(inner)));
  }

  struct FeedForwardTensors {
    at::Tensor &wi, &wi_0, &wi_1, &wo;
  };

  // One network of hidden width d_ff, or num_experts of them.
  void add_networks(const std::string& module, const FeedForwardTensors& weights, int64_t d_ff, int64_t num_experts) {
    const Form in{
        .shape = {d_ff, config.d_model}, .role = Role::kFeedForward, .num_experts = num_experts, .tensor_axis = 0};
    const Form out{
        .shape = {config.d_model, d_ff}, .role = Role::kFeedForward, .num_experts = num_experts, .tensor_axis = 1};
    if (config.gated) {
      add_scaled(module + ".wi_0.weight", weights.wi_0, in);
      add_scaled(module + ".wi_1.weight", weights.wi_1, in);
    } else {
      add_scaled(module + ".wi.weight", weights.wi, in);
    }
    add_scaled(module + ".wo.weight", weights.wo, out);
  }

  // num_experts: 0 in a dense layer.
  void add_feed_forward(const std::string& layer, FeedForwardWeights& weights, int64_t num_experts) {
    // HF's names: T5 calls the module DenseReluDense, Switch calls it mlp in dense and sparse blocks.
    const std::string module = layer + (config.has_sparse_layers() ? ".mlp" : ".DenseReluDense");
    const bool sparse = num_experts > 0;
    if (sparse) add_router(module, weights.router, num_experts);
    add_networks(sparse ? module + ".experts" : module, {weights.wi, weights.wi_0, weights.wi_1, weights.wo},
                 config.d_ff, num_experts);
    if (sparse && config.routing.shared_expert_d_ff > 0)
      add_networks(module + ".shared_expert",
                   {weights.shared_wi, weights.shared_wi_0, weights.shared_wi_1, weights.shared_wo},
                   config.routing.shared_expert_d_ff, /*num_experts=*/0);
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
            {.shape = {config.relative_attention_num_buckets, config.num_heads},
             .role = Role::kPositionBias,
             .tensor_axis = 1},
            Initializer::kNormal,
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
  const auto table = [&](Role role) {
    return Form{.shape = {config.vocab_size, config.d_model}, .role = role, .tensor_axis = 0};
  };
  lister.add("shared.weight", weights.shared, table(Role::kEmbedding), Initializer::kNormal, 1.0);
  const auto add_input = [&](bool tied, const char* name, StackWeights& stack) {
    if (!tied) lister.add(name, stack.embedding, table(Role::kEmbedding), Initializer::kNormal, 1.0);
  };
  add_input(config.tie_encoder_input, "encoder.embed_tokens.weight", weights.encoder);
  lister.add_stack("encoder", weights.encoder, /*is_decoder=*/false);
  if (config.num_decoder_layers == 0) return std::move(lister.list);
  add_input(config.tie_decoder_input, "decoder.embed_tokens.weight", weights.decoder);
  lister.add_stack("decoder", weights.decoder, /*is_decoder=*/true);
  if (!config.tie_output) lister.add_scaled("lm_head.weight", weights.lm_head, table(Role::kOutput));
  return std::move(lister.list);
}

std::string first_difference(const std::vector<ParameterSpec>& wanted, const std::vector<ParameterSpec>& present) {
  std::map<std::string, at::IntArrayRef> shapes;
  for (const auto& spec : present) shapes[spec.name] = spec.shape;
  for (const auto& spec : wanted) {
    const auto found = shapes.find(spec.name);
    if (found == shapes.end()) return join(spec.name, " ", at::IntArrayRef(spec.shape), ", which is not there");
    if (found->second != at::IntArrayRef(spec.shape))
      return join(spec.name, " ", at::IntArrayRef(spec.shape), " in place of ", found->second);
    shapes.erase(found);
  }
  return shapes.empty() ? "" : "nothing of " + shapes.begin()->first;
}

std::vector<ParameterSpec> parameter_specs(const ModelConfig& config) {
  ModelWeights unused;
  std::vector<ParameterSpec> specs;
  for (auto& parameter : list_parameters(config, unused)) specs.push_back(std::move(parameter.spec));
  return specs;
}

}  // namespace switchyard
