// Models stored as int8 and int4: opened as values, and for passes that multiply by the integers.
#include "ops/quantized.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include "base/error.h"
#include "base/files.h"
#include "checkpoint/model_directory.h"
#include "checkpoint/testing.h"
#include "model/decoder_cache.h"
#include "ops/backend.h"
#include "testing/tensors.h"

namespace switchyard {
namespace {

using test::relative_error;
using testing::HasSubstr;
using testing::ThrowsMessage;

ModelConfig small(bool gated, bool tie_output) {
  auto config = small_model("switch-tiny-4", gated, tie_output);
  config.d_model = 64;
  config.d_ff = 128;
  config.d_kv = 32;
  config.num_heads = 4;
  return config;
}

at::Tensor some_ids(int64_t length) { return at::arange(length, at::kLong).mul(37).remainder(101).view({1, length}); }

struct Outputs {
  at::Tensor hidden, logits, step_logits;
};

Outputs run(const ModelConfig& config, const ComputeWeights& weights) {
  const at::NoGradGuard no_grad;
  const auto encoder = encode(config, weights, {some_ids(40)}, {.drop_tokens = false});
  const auto decoder = decode(config, weights, {some_ids(5)}, encoder.hidden, {}, {.drop_tokens = false});
  DecoderCache cache(weights, 1, 8);
  const auto slots = cache.add_rows(weights, encoder.hidden, {});
  const auto step = decode_step(config, weights, cache, slots, some_ids(5));
  return {encoder.hidden, output_logits(weights, decoder.hidden), output_logits(weights, step)};
}

class QuantizedModel : public testing::TestWithParam<at::ScalarType> {};

TEST_P(QuantizedModel, ComputesWhatItsValuesCompute) {
  if (!ops::is_fused(at::zeros({1}, at::kBFloat16), ops::Kernel::kPanels, {64})) GTEST_SKIP() << "no bf16 products";
  for (const bool gated : {false, true})
    for (const bool tie_output : {false, true}) {
      ScratchFolder folder;
      const auto config = small(gated, tie_output);
      save_model(folder / "model", config, initialize(config, 3), {.dtype = GetParam()});
      const auto values = open_model(folder / "model", at::kFloat);
      const auto model = open_for_inference(folder / "model", at::kBFloat16);
      EXPECT_EQ(model.weights.decoder.blocks[0].self_attention.qkv.scalar_type(), GetParam());
      EXPECT_EQ(model.weights.decoder.blocks[1].feed_forward.experts.wo.scalar_type(), GetParam());
      EXPECT_EQ(model.weights.output.scalar_type(), tie_output ? at::kChar : GetParam());
      const auto expected = run(values.config, cast_weights(values.config, values.weights, at::kFloat));
      const auto actual = run(model.config, model.weights);
      // bf16 roundings of four blocks; a tied table is rounded to 8 bits besides.
      EXPECT_LE(relative_error(actual.hidden, expected.hidden), 0.02) << gated << tie_output;
      EXPECT_LE(relative_error(actual.logits, expected.logits), 0.03) << gated << tie_output;
      EXPECT_LE(relative_error(actual.step_logits, expected.step_logits), 0.03) << gated << tie_output;
    }
}

TEST_P(QuantizedModel, IsStoredAgainAsItIs) {
  ScratchFolder folder;
  const auto config = small(true, false);
  save_model(folder / "model", config, initialize(config, 3), {.dtype = GetParam()});
  save_model(folder / "again", open_files(folder / "model"), {.dtype = GetParam()});
  EXPECT_TRUE(read_file(folder / "model" / "model.safetensors", 1U << 24U) ==
              read_file(folder / "again" / "model.safetensors", 1U << 24U));
  EXPECT_THAT(read_file(folder / "model" / "config.json", 1U << 20U), HasSubstr("\"quant_method\": \"switchyard\""));
}

TEST_P(QuantizedModel, RunsOfElementsAreThoseOfTheWhole) {
  ScratchFolder folder;
  const auto config = small(false, true);
  save_model(folder / "model", config, initialize(config, 3), {.dtype = GetParam()});
  const auto files = open_files(folder / "model");
  const auto& stored = files.tensors.at("encoder.block.0.layer.0.SelfAttention.q.weight");
  const auto whole = read_tensor(stored, at::kFloat).view({-1});
  for (const auto& [first, count] : std::vector<std::pair<int64_t, int64_t>>{{0, 1}, {63, 3}, {100, 4000}, {8191, 1}}) {
    const auto part = at::zeros({count}, at::kFloat);
    stored.read(first, part);
    EXPECT_TRUE(at::equal(part, whole.narrow(0, first, count))) << first;
  }
}

TEST_P(QuantizedModel, RefusesScalesThatDoNotFit) {
  ScratchFolder folder;
  const auto config = small(false, true);
  save_model(folder / "model", config, initialize(config, 3), {.dtype = GetParam()});
  const std::string name = "encoder.block.0.layer.0.SelfAttention.q.weight";
  rewrite_tensors(folder / "model", [&](NamedTensors& tensors) {
    tensors[name + "_scale"] = tensors[name + "_scale"].slice(0, 1).clone();
  });
  EXPECT_THAT([&] { open_for_inference(folder / "model", at::kBFloat16); },
              ThrowsMessage<Error>(HasSubstr(name + "_scale is ")));
  rewrite_tensors(folder / "model", [&](NamedTensors& tensors) { tensors.erase(name + "_scale"); });
  EXPECT_THAT([&] { open_for_inference(folder / "model", at::kBFloat16); }, ThrowsMessage<Error>(HasSubstr(name)));
}

INSTANTIATE_TEST_SUITE_P(Forms, QuantizedModel, testing::Values(at::kChar, at::kByte),
                         [](const auto& test) { return test.param == at::kChar ? "Int8" : "Int4"; });

}  // namespace
}  // namespace switchyard
