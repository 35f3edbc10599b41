// Which of a model directory's tables are one, and whether the output is scaled.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>

#include "base/config.h"
#include "base/error.h"
#include "base/files.h"
#include "checkpoint/model_directory.h"
#include "checkpoint/testing.h"

namespace switchyard {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

// Any table may be tied or not, whatever the others are and whether the output is scaled.
TEST(Tying, EveryTyingComesBack) {
  for (const char* name : {"switch-tiny-4", "t5-tiny"})
    for (int bits = 0; bits < 16; ++bits) {
      auto config = small_model(name);
      config.tie_output = (bits & 1) != 0;
      config.scale_output = (bits & 2) != 0;
      config.tie_encoder_input = (bits & 4) != 0;
      config.tie_decoder_input = (bits & 8) != 0;
      SCOPED_TRACE(join(name, " ", bits));
      const auto weights = initialize(config, 3);
      ScratchFolder folder;
      save_model(folder / "model", config, weights);
      const auto loaded = open_model(folder / "model", at::kFloat);
      EXPECT_EQ(fields_to_json(loaded.config), fields_to_json(config));
      expect_equal_weights(config, weights, loaded.weights);
      save_model(folder / "copy", open_files(folder / "model"), {});
      EXPECT_EQ(read_file(folder / "copy/model.safetensors"), read_file(folder / "model/model.safetensors"));
      const auto lazy = open_for_inference(folder / "model", at::kBFloat16);
      const auto expected = cast_weights(config, weights, at::kBFloat16);
      EXPECT_EQ(lazy.weights.output_scale, expected.output_scale);
      EXPECT_TRUE(at::equal(lazy.weights.output, expected.output));
      for (const auto& [read, cast] :
           {std::pair{&lazy.weights.encoder, &expected.encoder}, std::pair{&lazy.weights.decoder, &expected.decoder}}) {
        EXPECT_TRUE(at::equal(read->embedding, cast->embedding));
      }
    }
}

TEST(Tying, OldT5TablesAreIgnoredOrCompared) {
  ScratchFolder folder;
  const auto config = small_model("t5-tiny");
  const auto weights = initialize(config, 3);
  save_model(folder / "model", config, weights);
  rewrite_tensors(folder / "model", [&](NamedTensors& tensors) {
    tensors["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = at::ones({32, 2});
    tensors["encoder.embed_tokens.weight"] = weights.shared;
    tensors["decoder.embed_tokens.weight"] = weights.shared;
    tensors["lm_head.weight"] = weights.shared;
  });
  const auto loaded = open_model(folder / "model", at::kFloat);
  EXPECT_TRUE(loaded.config.tie_output);
  expect_equal_weights(config, weights, loaded.weights);
  rewrite_tensors(folder / "model",
                  [&](NamedTensors& tensors) { tensors["decoder.embed_tokens.weight"] = weights.shared + 1; });
  const auto untied = open_model(folder / "model", at::kFloat);
  EXPECT_TRUE(untied.config.tie_encoder_input && !untied.config.tie_decoder_input);
  EXPECT_TRUE(at::equal(untied.weights.decoder.embedding, weights.shared + 1));
  rewrite_tensors(folder / "model", [&](NamedTensors& tensors) {
    tensors["decoder.embed_tokens.weight"] = at::ones({2, 2});
  });
  EXPECT_THAT(
      [&] { open_model(folder / "model", at::kFloat); },
      ThrowsMessage<Error>(HasSubstr("decoder.embed_tokens.weight is F32 [2, 2], expected floating [128, 64]")));
}

// Convention: HF 5.23.0. A tied config scales, whatever head the file has; logits are scale * hidden * own head.
TEST(Tying, ATiedConfigWithItsOwnHeadScalesAllTheSame) {
  ScratchFolder folder;
  const auto config = small_model("t5-tiny");
  const auto weights = initialize(config, 3);
  save_model(folder / "model", config, weights);
  const auto head = initialize(config, 4).shared;
  rewrite_tensors(folder / "model", [&](NamedTensors& tensors) { tensors["lm_head.weight"] = head; });
  const auto loaded = open_model(folder / "model", at::kFloat);
  EXPECT_TRUE(!loaded.config.tie_output && loaded.config.scale_output);
  EXPECT_EQ(fields_to_json(open_config(folder / "model")), fields_to_json(loaded.config)) << "a run continues with it";
  EXPECT_TRUE(at::equal(loaded.weights.lm_head, head));
  EXPECT_TRUE(at::equal(loaded.weights.shared, weights.shared));
  save_model(folder / "again", loaded.config, loaded.weights);
  EXPECT_EQ(fields_to_json(open_config(folder / "again")), fields_to_json(loaded.config));
  expect_equal_weights(loaded.config, loaded.weights, open_model(folder / "again", at::kFloat).weights);
}

// mT5's config unties, some files leave the head out: HF then ties it, and does not scale.
TEST(Tying, AnUntiedT5WithoutHeadIsTiedAndUnscaled) {
  ScratchFolder folder;
  const auto config = small_model("t5-tiny", true, false);
  const auto weights = initialize(config, 3);
  save_model(folder / "model", config, weights);
  rewrite_tensors(folder / "model", [](NamedTensors& tensors) { tensors.erase("lm_head.weight"); });
  const auto loaded = open_model(folder / "model", at::kFloat);
  EXPECT_TRUE(loaded.config.tie_output && !loaded.config.scale_output);
  EXPECT_FALSE(loaded.weights.lm_head.defined());
  save_model(folder / "again", loaded.config, loaded.weights);
  EXPECT_FALSE(list_model_tensors(folder / "again").contains("lm_head.weight"));
  EXPECT_EQ(fields_to_json(open_config(folder / "again")), fields_to_json(loaded.config));
}

// HF 5.23.0 fills such tables with noise; here they are the shared one.
TEST(Tying, AnUntiedSwitchWithoutInputTablesUsesTheSharedOne) {
  ScratchFolder folder;
  const auto config = small_model("switch-tiny-4", false, false);
  const auto weights = initialize(config, 3);
  save_model(folder / "model", config, weights);
  rewrite_tensors(folder / "model", [](NamedTensors& tensors) {
    tensors.erase("encoder.embed_tokens.weight");
    tensors.erase("decoder.embed_tokens.weight");
  });
  expect_equal_weights(config, weights, open_model(folder / "model", at::kFloat).weights);
  rewrite_tensors(folder / "model", [](NamedTensors& tensors) { tensors.erase("lm_head.weight"); });
  EXPECT_THAT([&] { open_model(folder / "model", at::kFloat); },
              ThrowsMessage<Error>(HasSubstr("missing: lm_head.weight [128, 64]")));
}

}  // namespace
}  // namespace switchyard
