#include "model/flops.h"

namespace switchyard {

double forward_flops(const ModelConfig& config, int64_t encoder_length, int64_t decoder_length) {
  const auto number = [](int64_t value) { return static_cast<double>(value); };
  const double inputs = number(encoder_length), targets = number(decoder_length);
  const double d_model = number(config.d_model), inner = number(config.inner_size());
  const double feed_forward = (config.gated ? 3.0 : 2.0) * d_model * number(config.d_ff);
  const double encoder_layers = number(config.num_encoder_layers), decoder_layers = number(config.num_decoder_layers);
  const double weights = encoder_layers * (4 * d_model * inner + feed_forward) * inputs +
                         decoder_layers * (8 * d_model * inner + feed_forward) * targets;
  const double scores = encoder_layers * inputs * inputs + decoder_layers * (targets * targets + inputs * targets);
  return 2 * weights + 2 * inner * scores + 2 * number(config.vocab_size) * d_model * targets;
}

double router_flops(const ModelConfig& config, int64_t encoder_length, int64_t decoder_length) {
  int64_t tokens = 0;
  for (int64_t block = 0; block < config.num_encoder_layers; ++block)
    if (config.is_sparse_encoder_layer(block)) tokens += encoder_length;
  for (int64_t block = 0; block < config.num_decoder_layers; ++block)
    if (config.is_sparse_decoder_layer(block)) tokens += decoder_length;
  return 2.0 * static_cast<double>(config.d_model) * static_cast<double>(config.routing.num_experts) *
         static_cast<double>(tokens);
}

}  // namespace switchyard
