#include "model/flops.h"

namespace switchyard {

double forward_flops(const ModelConfig& config, int64_t encoder_length, int64_t decoder_length) {
  const auto number = [](int64_t value) { return static_cast<double>(value); };
  const double inputs = number(encoder_length), targets = number(decoder_length);
  const double d_model = number(config.d_model), inner = number(config.inner_size());
  const double feed_forward = (config.gated ? 3.0 : 2.0) * d_model * number(config.d_ff);
  const double encoder_layers = number(config.num_encoder_layers), decoder_layers = number(config.num_decoder_layers);
  // A sparse layer costs a token its k experts and the shared one in place of the dense network.
  const double extra = (number(config.routing.num_selected_experts) - 1.0) * feed_forward +
                       (config.gated ? 3.0 : 2.0) * d_model * number(config.routing.shared_expert_d_ff);
  double sparse_tokens = 0;
  for (int64_t block = 0; block < config.num_encoder_layers; ++block)
    if (config.is_sparse_encoder_layer(block)) sparse_tokens += inputs;
  for (int64_t block = 0; block < config.num_decoder_layers; ++block)
    if (config.is_sparse_decoder_layer(block)) sparse_tokens += targets;
  const double weights = extra * sparse_tokens + encoder_layers * (4 * d_model * inner + feed_forward) * inputs +
                         decoder_layers * (8 * d_model * inner + feed_forward) * targets;
  const double scores = encoder_layers * inputs * inputs + decoder_layers * (targets * targets + inputs * targets);
  return 2 * weights + 2 * inner * scores + 2 * number(config.vocab_size) * d_model * targets;
}

double router_flops(const ModelConfig& config, int64_t encoder_length, int64_t decoder_length) {
  if (config.routing.router == RouterKind::kHash) return 0.0;
  double products = 0;
  const auto add_stack = [&](bool decoder, int64_t num_layers, int64_t length) {
    for (int64_t block = 0; block < num_layers; ++block) {
      int64_t experts = 0;
      if (decoder ? config.is_sparse_decoder_layer(block) : config.is_sparse_encoder_layer(block))
        experts += config.layer_num_experts(decoder, block);
      if (config.has_sparse_attention(decoder, block)) experts += config.routing.num_experts;
      products += static_cast<double>(experts) * static_cast<double>(length);
    }
  };
  add_stack(false, config.num_encoder_layers, encoder_length);
  add_stack(true, config.num_decoder_layers, decoder_length);
  return 2.0 * static_cast<double>(config.d_model) * products;
}

}  // namespace switchyard
