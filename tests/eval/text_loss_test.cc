#include "eval/text_loss.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "model/routing_variants.h"
#include "testing/model.h"

namespace switchyard {
namespace {

ModelConfig tiny() {
  auto config = test::tiny_model();
  config.routing.group_size = 24;
  config.routing.eval_capacity_factor = 1.0;
  return config;
}

// Examples [first, first + count) of eleven.
Batch examples(int64_t first, int64_t count) {
  Batch batch{.batch_size = std::min<int64_t>(count, 11 - first), .encoder_length = 12, .decoder_length = 6};
  for (int64_t row = first; row < first + batch.batch_size; ++row) {
    NoiseStream noise({.seed = 5, .purpose = NoisePurpose::kShuffle}, static_cast<uint64_t>(row));
    for (int64_t n = 0; n < 12; ++n) batch.encoder_input_tokens.push_back(static_cast<int32_t>(3 + noise.below(60)));
    for (int64_t n = 0; n < 6; ++n) batch.decoder_target_tokens.push_back(static_cast<int32_t>(3 + noise.below(60)));
  }
  return batch;
}

// Whatever the size of the batches: the same counts, the same sums up to their order.
TEST(TextLoss, DoesNotDependOnTheBatchSize) {
  const at::NoGradGuard no_grad;
  for (const auto& variant : routing_variants()) {
    SCOPED_TRACE(variant.name);
    const auto config = with_variant(tiny(), variant);
    const auto weights = cast_weights(config, initialize(config, 2), at::kFloat);
    const auto at_size = [&](int64_t requested) {
      const int64_t size = evaluation_batch_size(config.routing, 12, requested);
      return text_loss(config, weights, (11 + size - 1) / size, [&](int64_t n) { return examples(n * size, size); });
    };
    const auto one = at_size(1), many = at_size(8);
    EXPECT_EQ(one.tokens, 66);
    EXPECT_EQ(one.tokens, many.tokens);
    EXPECT_EQ(one.accuracy, many.accuracy);
    EXPECT_EQ(one.dropped_fraction, many.dropped_fraction);
    EXPECT_NEAR(one.loss, many.loss, 1e-6 * many.loss);
  }
}

TEST(TextLoss, PartsAddUpToTheWhole) {
  const at::NoGradGuard no_grad;
  const auto config = tiny();
  const auto weights = cast_weights(config, initialize(config, 2), at::kFloat);
  const auto parted = [](int64_t n) {
    Batch batch = examples(n * 4, 4);
    for (int64_t row = 0; row < batch.batch_size; ++row) batch.part.push_back(n * 4 + row < 7 ? 0 : 2);
    return batch;
  };
  const auto result = text_loss(config, weights, 3, parted);
  ASSERT_EQ(result.parts.size(), 3u);
  EXPECT_EQ(result.parts[0].examples, 7);
  EXPECT_EQ(result.parts[1].labels, 0);
  EXPECT_EQ(result.parts[2].labels, 4 * 6);
  EXPECT_EQ(result.parts[2].tokens, 4 * 18);
  EXPECT_NEAR((result.parts[0].loss + result.parts[2].loss) / 66.0, result.loss, 1e-6 * result.loss);
  EXPECT_TRUE(text_loss(config, weights, 1, [](int64_t) { return examples(0, 4); }).parts.empty());
}

}  // namespace
}  // namespace switchyard
