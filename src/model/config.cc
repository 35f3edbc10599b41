#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace switchyard {
namespace {

// Bounds on what a config file from elsewhere may ask for; products of sizes then stay far from overflow.
constexpr int64_t kMaxSize = int64_t{1} << 26;
constexpr int64_t kMaxLayers = 4096;
constexpr double kMaxParameters = 0x1p56;

void check_range(const char* name, int64_t value, int64_t low, int64_t high) {
  SY_CHECK(value >= low && value <= high, "model.", name, " is ", value, ", expected ", low, " to ", high);
}

void check_range(const char* name, double value, double low, double high) {
  SY_CHECK(value >= low && value <= high, "model.", name, " is ", value, ", expected ", low, " to ", high);
}

bool is_sparse(int64_t block, int64_t step, const std::vector<int64_t>& layers) {
  if (!layers.empty()) return std::find(layers.begin(), layers.end(), block) != layers.end();
  return step > 0 && block % step == step - 1;
}

void check_sparse_layers(const std::string& stack, int64_t num_layers, int64_t step,
                         const std::vector<int64_t>& layers) {
  SY_CHECK(step >= 0 && step <= num_layers, "model.", stack, "_sparse_step is ", step, ", but the ", stack, " has ",
           num_layers, " layers; expected 0 (none) to ", num_layers);
  int64_t previous = -1;
  for (const int64_t layer : layers) {
    SY_CHECK(layer > previous && layer < num_layers, "model.sparse_", stack, "_layers lists block ", layer, " after ",
             previous, "; expected increasing block numbers from 0 to ", num_layers - 1);
    previous = layer;
  }
}

double count_parameters(const ModelConfig& config) {
  const auto d_model = static_cast<double>(config.d_model);
  const auto attention = 4.0 * d_model * static_cast<double>(config.num_heads) * static_cast<double>(config.d_kv);
  const auto feed_forward = 3.0 * d_model * static_cast<double>(config.d_ff);
  const auto experts = static_cast<double>(std::max<int64_t>(1, config.routing.num_experts));
  const auto layers = static_cast<double>(config.num_encoder_layers + config.num_decoder_layers);
  return 2.0 * static_cast<double>(config.vocab_size) * d_model + layers * (2.0 * attention + feed_forward * experts);
}

void check_routing(const RoutingConfig& routing) {
  check_range("num_experts", routing.num_experts, int64_t{0}, kMaxSize);
  check_range("train_capacity_factor", routing.train_capacity_factor, 1e-3, 1e6);
  check_range("eval_capacity_factor", routing.eval_capacity_factor, 1e-3, 1e6);
  check_range("min_expert_capacity", routing.min_expert_capacity, int64_t{1}, kMaxSize);
  check_range("expert_capacity", routing.expert_capacity, int64_t{0}, kMaxSize);
  check_range("group_size", routing.group_size, int64_t{0}, kMaxSize);
  SY_CHECK(routing.jitter_noise >= 0 && routing.jitter_noise < 1, "model.jitter_noise is ", routing.jitter_noise,
           ", expected 0 to less than 1");
  check_range("load_balance_loss_coef", routing.load_balance_loss_coef, 0.0, 1e6);
  check_range("router_z_loss_coef", routing.router_z_loss_coef, 0.0, 1e6);
}

}  // namespace

bool ModelConfig::is_sparse_encoder_layer(int64_t block) const {
  return routing.num_experts > 0 && is_sparse(block, encoder_sparse_step, sparse_encoder_layers);
}

bool ModelConfig::is_sparse_decoder_layer(int64_t block) const {
  return routing.num_experts > 0 && is_sparse(block, decoder_sparse_step, sparse_decoder_layers);
}

bool ModelConfig::has_sparse_layers() const {
  return routing.num_experts > 0 && (encoder_sparse_step > 0 || decoder_sparse_step > 0 ||
                                     !sparse_encoder_layers.empty() || !sparse_decoder_layers.empty());
}

void validate(const ModelConfig& config) {
  const std::pair<const char*, int64_t> sizes[] = {
      {"vocab_size", config.vocab_size}, {"d_model", config.d_model}, {"d_ff", config.d_ff}, {"d_kv", config.d_kv},
      {"num_heads", config.num_heads},
  };
  for (const auto& [name, size] : sizes) check_range(name, size, 1, kMaxSize);
  check_range("num_encoder_layers", config.num_encoder_layers, int64_t{1}, kMaxLayers);
  check_range("num_decoder_layers", config.num_decoder_layers, int64_t{1}, kMaxLayers);
  const auto& activation = config.activation;
  SY_CHECK(activation == "relu" || activation == "gelu" || activation == "gelu_new" || activation == "silu",
           "model.activation is \"", activation.substr(0, 64),
           "\", expected relu, gelu (erf), gelu_new (tanh) or silu");

  const int64_t num_buckets = config.relative_attention_num_buckets;
  check_range("relative_attention_num_buckets", num_buckets, int64_t{4}, kMaxSize);
  SY_CHECK(num_buckets % 4 == 0, "model.relative_attention_num_buckets is ", num_buckets,
           ", expected a multiple of 4: half for each direction, half of that for exact distances");
  SY_CHECK(
      config.relative_attention_max_distance > num_buckets / 2 && config.relative_attention_max_distance <= kMaxSize,
      "model.relative_attention_max_distance is ", config.relative_attention_max_distance, ", expected more than ",
      num_buckets / 2, " (half the buckets hold exact distances) and at most ", kMaxSize);

  SY_CHECK(config.layer_norm_epsilon > 0 && config.layer_norm_epsilon <= 1, "model.layer_norm_epsilon is ",
           config.layer_norm_epsilon, ", expected more than 0, at most 1");
  SY_CHECK(config.initializer_scale > 0 && config.initializer_scale <= 1e6, "model.initializer_scale is ",
           config.initializer_scale, ", expected more than 0");
  for (const auto& [name, rate] :
       {std::pair{"dropout_rate", config.dropout_rate}, std::pair{"expert_dropout_rate", config.expert_dropout_rate}})
    SY_CHECK(rate >= 0 && rate < 1, "model.", name, " is ", rate, ", expected 0 to less than 1");

  check_routing(config.routing);
  check_sparse_layers("encoder", config.num_encoder_layers, config.encoder_sparse_step, config.sparse_encoder_layers);
  check_sparse_layers("decoder", config.num_decoder_layers, config.decoder_sparse_step, config.sparse_decoder_layers);
  SY_CHECK(!config.relative_bias_every_layer || config.routing.num_experts == 0,
           "model.relative_bias_every_layer is umT5's, which has no sparse form; set model.num_experts = 0 or leave it "
           "false");
  const bool places_experts = config.encoder_sparse_step > 0 || config.decoder_sparse_step > 0 ||
                              !config.sparse_encoder_layers.empty() || !config.sparse_decoder_layers.empty();
  SY_CHECK(config.routing.num_experts > 0 || !places_experts,
           "model.num_experts is 0, but sparse layers are asked for; set model.num_experts, or for a dense model "
           "model.encoder_sparse_step = 0 and model.decoder_sparse_step = 0");
  SY_CHECK(config.routing.num_experts == 0 || places_experts, "model.num_experts is ", config.routing.num_experts,
           ", but no layer is sparse; set model.encoder_sparse_step and model.decoder_sparse_step (2: every second "
           "layer), or "
           "model.num_experts = 0 for a dense model");
  SY_CHECK(count_parameters(config) < kMaxParameters, "the model would have about ", count_parameters(config),
           " parameters; expected less than 2^56");
}

int64_t expert_capacity(const RoutingConfig& routing, int64_t group_tokens, bool training) {
  if (routing.expert_capacity > 0) return routing.expert_capacity;
  const double factor = training ? routing.train_capacity_factor : routing.eval_capacity_factor;
  // Multiplied before divided, as Mesh does: 1024 * 1.25 / 128 is exactly 10.
  const double share = static_cast<double>(group_tokens) * factor / static_cast<double>(routing.num_experts);
  const auto slots = share < static_cast<double>(group_tokens) ? static_cast<int64_t>(share) : group_tokens;
  return std::max(routing.min_expert_capacity, slots);
}

}  // namespace switchyard
