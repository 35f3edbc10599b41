// A sparse teacher, a dense student and a batch to learn from.
#pragma once

#include "base/random.h"
#include "checkpoint/model_directory.h"
#include "data/batch.h"
#include "testing/model.h"

namespace switchyard {

inline ModelConfig dense_student() {
  auto config = test::tiny_model();
  config.encoder_sparse_step = config.decoder_sparse_step = 0;
  config.routing.num_experts = 0;
  return config;
}

inline ModelConfig sparse_teacher() {
  auto config = test::tiny_model();
  config.routing.group_size = 24;  // two sequences of the encoder
  config.routing.eval_capacity_factor = 1.0;
  return config;
}

inline InferenceModel model_of(const ModelConfig& config, uint64_t seed, at::ScalarType dtype) {
  return {config, cast_weights(config, initialize(config, seed), dtype)};
}

// Eight sequences of 12 + 6 tokens; later ones end earlier, so that parts of the batch hold unequal numbers of tokens.
inline Batch padded_batch() {
  Batch batch{.batch_size = 8, .encoder_length = 12, .decoder_length = 6};
  NoiseStream noise({.seed = 5, .purpose = NoisePurpose::kShuffle});
  const auto fill = [&](std::vector<int32_t>& ids, int64_t length) {
    for (int64_t row = 0; row < batch.batch_size; ++row)
      for (int64_t n = 0; n < length; ++n)
        ids.push_back(n < length - row / 2 ? static_cast<int32_t>(3 + noise.below(60)) : 0);
  };
  fill(batch.encoder_input_tokens, batch.encoder_length);
  fill(batch.decoder_target_tokens, batch.decoder_length);
  return batch;
}

}  // namespace switchyard
