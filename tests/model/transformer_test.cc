// The whole model against independent statements: finite differences, invariances, and its own plain kernels.
#include "model/transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/decoder_cache.h"
#include "model/loss.h"
#include "ops/backend.h"
#include "testing/model.h"

namespace switchyard {
namespace {

ModelConfig tiny() {
  auto config = test::tiny_model();
  config.num_encoder_layers = config.num_decoder_layers = 2;
  config.initializer_scale = 0.1;
  return config;
}

ModelWeights random_weights(const ModelConfig& config) {
  auto weights = initialize(config, 11);
  for (auto& [spec, tensor] : list_parameters(config, weights))  // nothing stays at its special initial value
    if (spec.shape.size() == 1) *tensor = *tensor + 0.1 * at::randn_like(*tensor);
  return weights;
}

LossInput random_input(int64_t batch, int64_t encoder_length, int64_t decoder_length, int64_t vocab_size) {
  const auto labels = at::randint(3, vocab_size, {batch, decoder_length}, at::kLong);
  return {{at::randint(3, vocab_size, {batch, encoder_length}, at::kLong)}, {shift_right(labels)}, labels};
}

double loss_of(const ModelConfig& config, const ModelWeights& weights, const LossInput& input,
               at::ScalarType dtype = at::kDouble) {
  return compute_loss(config, cast_weights(config, weights, dtype), input, {}, {}).total.item<double>();
}

TEST(Transformer, GradientsOfEveryParameterMatchFiniteDifferences) {
  for (const bool gated : {false, true}) {
    auto config = tiny();
    config.gated = gated;
    config.activation = gated ? Activation::kGeluNew : Activation::kRelu;
    config.tie_output = config.tie_decoder_input = !gated;
    config.routing.router_z_loss_coef = 0.1;
    config.routing.load_balance_loss_coef = 0.3;
    auto weights = random_weights(config);
    auto parameters = list_parameters(config, weights);
    for (auto& parameter : parameters) *parameter.tensor = parameter.tensor->to(at::kDouble).requires_grad_();
    auto input = random_input(2, 9, 7, config.vocab_size);
    compute_loss(config, cast_weights(config, weights, at::kDouble), input, {}, {.z_loss = 0.01}).total.backward();
    const auto value = [&] {
      const at::NoGradGuard no_grad;
      return compute_loss(config, cast_weights(config, weights, at::kDouble), input, {}, {.z_loss = 0.01})
          .total.item<double>();
    };
    for (auto& [spec, tensor] : parameters) {
      ASSERT_TRUE(tensor->grad().defined()) << spec.name;
      const auto flat_gradient = tensor->grad().reshape({-1});
      const auto flat = tensor->detach().view({-1});
      const int64_t at = flat_gradient.abs().argmax().item<int64_t>();  // where a wrong gradient shows most
      const double before = flat[at].item<double>(), step = 1e-6;
      flat[at].fill_(before + step);
      const double above = value();
      flat[at].fill_(before - step);
      const double below = value();
      flat[at].fill_(before);
      const double expected = (above - below) / (2 * step), got = flat_gradient[at].item<double>();
      EXPECT_NEAR(got, expected, 1e-6 + 1e-5 * std::abs(expected)) << spec.name;
    }
  }
}

TEST(Transformer, FastKernelsEqualPlainOnes) {
  const auto config = tiny();
  const auto weights = random_weights(config);
  const auto input = random_input(3, 21, 13, config.vocab_size);
  const double exact = loss_of(config, weights, input);
  // A loss of about 5 after the f32 (1e-6 relative) or bf16 (2^-9, averaged over tokens) roundings of all blocks.
  EXPECT_NEAR(loss_of(config, weights, input, at::kFloat), exact, 2e-5);
  ops::use_reference_kernels(true);
  EXPECT_NEAR(loss_of(config, weights, input, at::kFloat), exact, 2e-5);
  ops::use_reference_kernels(false);
  EXPECT_NEAR(loss_of(config, weights, input, at::kBFloat16), exact, 0.05);
}

TEST(Transformer, EncoderPaddingChangesNothingWhateverItsContent) {
  auto config = tiny();
  config.routing.expert_capacity = 100;  // capacity counts positions; here it must not bind
  config.routing.group_size = 0;         // groups are sequences, so that each keeps its real tokens
  const auto weights = random_weights(config);
  const auto plain = random_input(2, 10, 6, config.vocab_size);
  auto padded = plain;
  padded.encoder.ids = at::cat({plain.encoder.ids, at::randint(3, config.vocab_size, {2, 5}, at::kLong)}, 1);
  padded.encoder.mask = at::cat({at::ones({2, 10}, at::kBool), at::zeros({2, 5}, at::kBool)}, 1);
  EXPECT_DOUBLE_EQ(loss_of(config, weights, plain), loss_of(config, weights, padded));
}

TEST(Transformer, DecoderSeesNoFutureToken) {
  auto config = tiny();
  const auto weights = cast_weights(config, random_weights(config), at::kDouble);
  const auto input = random_input(1, 8, 12, config.vocab_size);
  const auto encoded = encode(config, weights, {input.encoder.ids}, {});
  const auto hidden = decode(config, weights, {input.decoder.ids}, encoded.hidden, {}, {}).hidden;
  auto changed = input.decoder.ids.clone();
  changed[0][9].fill_(7);
  const auto other = decode(config, weights, {changed}, encoded.hidden, {}, {}).hidden;
  // Not bit-equal: an expert with another number of rows may sum its products in another order.
  EXPECT_TRUE(at::allclose(hidden.slice(1, 0, 9), other.slice(1, 0, 9), 1e-12, 1e-12));
  EXPECT_FALSE(at::allclose(hidden.slice(1, 9), other.slice(1, 9)));
}

// The bias of block 0 must reach the attention of every block of its stack (a fault that a peer had).
TEST(Transformer, PositionBiasReachesEveryBlock) {
  auto config = tiny();
  config.num_encoder_layers = 3;
  config.encoder_sparse_step = 0;
  for (int64_t silent = 0; silent < 3; ++silent) {
    auto weights = random_weights(config);
    for (int64_t block = 0; block < 3; ++block)  // only block `silent` has an attention that can act
      if (block != silent) weights.encoder.blocks[static_cast<size_t>(block)].self_attention.o.zero_();
    const auto ids = at::randint(3, config.vocab_size, {1, 20}, at::kLong);
    const auto before = encode(config, cast_weights(config, weights, at::kDouble), {ids}, {}).hidden;
    weights.encoder.relative_attention_bias =
        weights.encoder.relative_attention_bias + at::randn_like(weights.encoder.relative_attention_bias);
    const auto after = encode(config, cast_weights(config, weights, at::kDouble), {ids}, {}).hidden;
    EXPECT_FALSE(at::allclose(before, after)) << "block " << silent;
  }
}

TEST(Transformer, StepwiseDecodingEqualsTheWholeSequence) {
  auto config = tiny();
  config.routing.expert_capacity = 1000;
  const auto weights = cast_weights(config, random_weights(config), at::kDouble);
  const auto input = random_input(3, 9, 11, config.vocab_size);
  auto mask = at::ones({3, 9}, at::kBool);
  mask[1].slice(0, 6).fill_(false);
  const auto encoded = encode(config, weights, {input.encoder.ids, mask}, {});
  const auto whole = decode(config, weights, {input.decoder.ids}, encoded.hidden, {.mask = mask}, {}).hidden;
  DecoderCache cache(weights, /*slots=*/3, /*max_length=*/11);
  const auto slots = cache.add_rows(weights, encoded.hidden, mask);
  for (int64_t start = 0; start < 11;) {  // one position at a time, once three
    const int64_t count = start == 4 ? 3 : 1;
    const auto step = decode_step(config, weights, cache, slots, input.decoder.ids.slice(1, start, start + count));
    EXPECT_TRUE(at::allclose(step, whole.slice(1, start, start + count), 1e-12, 1e-12)) << "position " << start;
    start += count;
  }
  EXPECT_THROW(decode_step(config, weights, cache, slots, input.decoder.ids.slice(1, 0, 1)), Error);
}

// Noise belongs to the example, not to its place in a batch: two halves draw what the whole draws.
TEST(Transformer, MicroBatchesDrawTheSameNoise) {
  auto config = tiny();
  config.dropout_rate = 0.2;
  config.expert_dropout_rate = 0.3;
  config.routing.group_size = 0;
  const auto weights = cast_weights(config, random_weights(config), at::kDouble);
  const auto input = random_input(4, 8, 5, config.vocab_size);
  const ForwardOptions options{.training = true, .seed = 5, .step = 3};
  const auto whole = encode(config, weights, {input.encoder.ids}, options).hidden;
  auto second = options;
  second.first_example = 2;
  const auto half = encode(config, weights, {input.encoder.ids.slice(0, 2)}, second).hidden;
  EXPECT_TRUE(at::allclose(whole.slice(0, 2), half, 1e-12, 1e-12));
  auto later = options;
  later.step = 4;
  EXPECT_FALSE(at::allclose(whole, encode(config, weights, {input.encoder.ids}, later).hidden));
  EXPECT_FALSE(at::allclose(whole, encode(config, weights, {input.encoder.ids}, {}).hidden));
}

TEST(Transformer, InitialValuesHaveTheStatedSpread) {
  ModelConfig config = tiny();
  config.d_model = 256;
  config.d_ff = 512;
  config.vocab_size = 4096;
  auto weights = initialize(config, 3);
  EXPECT_NEAR(weights.shared.std().item<double>(), 1.0, 0.01);
  const auto& expert = weights.encoder.blocks[1].feed_forward;
  const double realised = 0.8796;  // of a normal cut at two standard deviations, not rescaled (TensorFlow)
  EXPECT_NEAR(expert.wi.std().item<double>(), realised * std::sqrt(0.1 / 256), 1e-4);
  EXPECT_NEAR(expert.wo.std().item<double>(), realised * std::sqrt(0.1 / 512), 1e-4);
  EXPECT_LE(expert.wi.abs().max().item<double>(), 2 * std::sqrt(0.1 / 256) * 1.0001);
  EXPECT_NEAR(weights.encoder.blocks[0].self_attention.q.std().item<double>(), 1.0 / std::sqrt(256.0 * 8.0), 1e-3);
  EXPECT_TRUE(at::equal(weights.shared, initialize(config, 3).shared));
  EXPECT_FALSE(at::equal(weights.shared, initialize(config, 4).shared));
}

}  // namespace
}  // namespace switchyard
