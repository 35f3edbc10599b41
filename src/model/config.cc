#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <tuple>
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

bool contains(const std::vector<int64_t>& list, int64_t value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

// The blocks of a stack whose feed-forward is sparse, in order, whatever the number of experts.
std::vector<int64_t> sparse_blocks(const ModelConfig& config, bool decoder) {
  const int64_t num_layers = decoder ? config.num_decoder_layers : config.num_encoder_layers;
  if (config.sparse_layout != SparseLayout::kStep)
    return sparse_layout(config.sparse_layout, num_layers,
                         decoder ? config.num_sparse_decoder_layers : config.num_sparse_encoder_layers);
  const auto& list = decoder ? config.sparse_decoder_layers : config.sparse_encoder_layers;
  if (!list.empty()) return list;
  std::vector<int64_t> blocks;
  const int64_t step = decoder ? config.decoder_sparse_step : config.encoder_sparse_step;
  for (int64_t block = step - 1; step > 0 && block < num_layers; block += step) blocks.push_back(block);
  return blocks;
}

bool places_experts(const ModelConfig& config) {
  return !sparse_blocks(config, false).empty() || !sparse_blocks(config, true).empty() ||
         config.encoder_attention_sparse_step > 0 || config.decoder_attention_sparse_step > 0;
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

void check_attention_experts(const ModelConfig& config) {
  for (const auto& [name, step, layers] :
       {std::tuple{"encoder_attention_sparse_step", config.encoder_attention_sparse_step, config.num_encoder_layers},
        std::tuple{"decoder_attention_sparse_step", config.decoder_attention_sparse_step, config.num_decoder_layers}})
    SY_CHECK(step >= 0 && step <= layers, "model.", name, " is ", step, ", expected 0 (none) to ", layers);
}

void check_layer_experts(const ModelConfig& config, bool decoder) {
  const auto& counts = decoder ? config.decoder_num_experts : config.encoder_num_experts;
  const char* name = decoder ? "decoder_num_experts" : "encoder_num_experts";
  const auto num_sparse = static_cast<int64_t>(sparse_blocks(config, decoder).size());
  SY_CHECK(counts.empty() || static_cast<int64_t>(counts.size()) == num_sparse, "model.", name, " has ", counts.size(),
           " entries for ", num_sparse, " sparse layers; expected one each, or none");
  for (const int64_t count : counts) {
    SY_CHECK(count >= config.routing.num_selected_experts && count <= kMaxSize, "model.", name, " has an entry ", count,
             ", expected at least model.num_selected_experts = ", config.routing.num_selected_experts);
  }
  SY_CHECK(counts.empty() || config.routing.load_balance_layers != LoadBalanceLayers::kPooled, "model.", name,
           ": layers with different numbers of experts have no pooled balance loss; set "
           "model.load_balance_layers to sum or mean");
}

double count_parameters(const ModelConfig& config) {
  const auto d_model = static_cast<double>(config.d_model);
  const auto attention = 4.0 * d_model * static_cast<double>(config.num_heads) * static_cast<double>(config.d_kv);
  const auto feed_forward = 3.0 * d_model * static_cast<double>(config.d_ff);
  const auto experts = static_cast<double>(std::max<int64_t>(1, config.routing.num_experts));
  const auto layers = static_cast<double>(config.num_encoder_layers + config.num_decoder_layers);
  return 2.0 * static_cast<double>(config.vocab_size) * d_model + layers * (2.0 * attention + feed_forward * experts);
}

}  // namespace

bool ModelConfig::is_sparse_encoder_layer(int64_t block) const {
  return routing.num_experts > 0 && contains(sparse_blocks(*this, false), block);
}

bool ModelConfig::is_sparse_decoder_layer(int64_t block) const {
  return routing.num_experts > 0 && contains(sparse_blocks(*this, true), block);
}

bool ModelConfig::has_sparse_layers() const { return routing.num_experts > 0 && places_experts(*this); }

bool ModelConfig::has_sparse_attention(bool decoder, int64_t block) const {
  const int64_t step = decoder ? decoder_attention_sparse_step : encoder_attention_sparse_step;
  return routing.num_experts > 0 && step > 0 && block % step == step - 1;
}

int64_t ModelConfig::layer_num_experts(bool decoder, int64_t block) const {
  const auto& counts = decoder ? decoder_num_experts : encoder_num_experts;
  if (counts.empty()) return routing.num_experts;
  const auto blocks = sparse_blocks(*this, decoder);
  return counts.at(static_cast<size_t>(std::find(blocks.begin(), blocks.end(), block) - blocks.begin()));
}

void validate(const ModelConfig& config) {
  check_range("num_decoder_layers", config.num_decoder_layers, int64_t{1}, kMaxLayers);
  validate_stored(config);
}

void validate_stored(const ModelConfig& config) {
  const std::pair<const char*, int64_t> sizes[] = {
      {"vocab_size", config.vocab_size}, {"d_model", config.d_model}, {"d_ff", config.d_ff}, {"d_kv", config.d_kv},
      {"num_heads", config.num_heads},
  };
  for (const auto& [name, size] : sizes) check_range(name, size, 1, kMaxSize);
  check_range("num_encoder_layers", config.num_encoder_layers, int64_t{1}, kMaxLayers);
  check_range("num_decoder_layers", config.num_decoder_layers, int64_t{0}, kMaxLayers);
  SY_CHECK(config.num_decoder_layers > 0 || config.tie_output,
           "model.tie_output is false, but the model is an encoder alone");

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

  validate_routing(config.routing);
  check_sparse_layers("encoder", config.num_encoder_layers, config.encoder_sparse_step, config.sparse_encoder_layers);
  check_sparse_layers("decoder", config.num_decoder_layers, config.decoder_sparse_step, config.sparse_decoder_layers);
  SY_CHECK(!config.relative_bias_every_layer || config.routing.num_experts == 0,
           "model.relative_bias_every_layer is umT5's, which has no sparse form; set model.num_experts = 0 or leave it "
           "false");
  check_attention_experts(config);
  check_layer_experts(config, false);
  check_layer_experts(config, true);
  const bool has_places = places_experts(config);
  SY_CHECK(config.routing.num_experts > 0 || !has_places,
           "model.num_experts is 0, but sparse layers are asked for; set model.num_experts, or for a dense model "
           "model.encoder_sparse_step = 0 and model.decoder_sparse_step = 0");
  SY_CHECK(config.routing.num_experts == 0 || has_places, "model.num_experts is ", config.routing.num_experts,
           ", but no layer is sparse; set model.encoder_sparse_step and model.decoder_sparse_step (2: every second "
           "layer), or "
           "model.num_experts = 0 for a dense model");
  SY_CHECK(count_parameters(config) < kMaxParameters, "the model would have about ", count_parameters(config),
           " parameters; expected less than 2^56");
}

std::vector<int64_t> sparse_layout(SparseLayout layout, int64_t num_layers, int64_t num_sparse) {
  SY_CHECK(num_sparse >= 0 && num_sparse <= num_layers, "sparse layout ", to_word(layout), ": ", num_sparse,
           " sparse of ", num_layers, " layers; expected 0 to ", num_layers);
  std::vector<int64_t> blocks;
  if (num_sparse == 0) return blocks;
  SY_CHECK(layout != SparseLayout::kMixed || num_layers % num_sparse == 0, "sparse layout mixed: ", num_sparse,
           " sparse layers do ", "not divide ", num_layers,
           "; choose a divisor, or list the blocks in sparse_encoder_layers and ", "sparse_decoder_layers");
  const int64_t step = num_layers / num_sparse;
  const int64_t first = layout == SparseLayout::kTop      ? num_layers - num_sparse
                        : layout == SparseLayout::kMiddle ? (num_layers - num_sparse) / 2
                                                          : 0;
  for (int64_t n = 0; n < num_sparse; ++n)
    blocks.push_back(layout == SparseLayout::kMixed ? (n + 1) * step - 1 : first + n);
  return blocks;
}

}  // namespace switchyard
