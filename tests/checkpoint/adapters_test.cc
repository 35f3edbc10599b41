#include "checkpoint/adapters.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include "base/files.h"
#include "base/json.h"
#include "checkpoint/safetensors.h"
#include "testing/errors.h"
#include "testing/model.h"
#include "testing/scratch_folder.h"

namespace switchyard {
namespace {

using test::error_of;
using testing::HasSubstr;

const std::string kMatrix = "encoder.block.0.layer.0.SelfAttention.q.weight";

class AdaptersTest : public testing::Test {
 protected:
  AdaptersTest() : config(test::tiny_model()), weights(initialize(config, 1)) {
    save_model(base, config, weights);
    const auto& q = weights.encoder.blocks[0].self_attention.q;
    adapters = {.base = base.string(),
                .rank = 3,
                .alpha = 6.0,
                .pairs = {{kMatrix, at::randn({3, q.size(1)}), at::randn({q.size(0), 3})}}};
    save_adapters(folder, config, adapters, {});
  }

  // Changes the file of the configuration.
  void set(const std::string& key, const Json& value) const {
    auto json = parse_json(read_file(folder / "adapter_config.json"), "test");
    json[key] = value;
    write_file_atomically(folder / "adapter_config.json", json.dump());
  }

  test::ScratchFolder scratch;
  std::filesystem::path base = scratch.path() / "base", folder = scratch.path() / "adapters";
  ModelConfig config;
  ModelWeights weights;
  Adapters adapters;
};

TEST_F(AdaptersTest, OpenAsTheModelWithTheProductAdded) {
  auto opened = open_model(folder, at::kFloat);
  const auto expected =
      weights.encoder.blocks[0].self_attention.q + at::mm(adapters.pairs[0].b, adapters.pairs[0].a) * 2.0;
  EXPECT_TRUE(at::allclose(opened.weights.encoder.blocks[0].self_attention.q, expected));
  EXPECT_TRUE(opened.weights.encoder.blocks[0].self_attention.k.equal(weights.encoder.blocks[0].self_attention.k));
  EXPECT_LT(std::filesystem::file_size(folder / "adapter_model.safetensors"), 4096u);

  const auto files = open_files(folder);
  const auto flat = expected.view({-1});
  for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 1}, {5, 40}, {17, 3}, {flat.numel() - 2, 2}}) {
    auto part = at::zeros({count});
    files.tensors.at(kMatrix).read(first, part);
    EXPECT_TRUE(at::allclose(part, flat.narrow(0, first, count))) << first;
  }
  save_model(scratch.path() / "merged", files, {});
  EXPECT_TRUE(at::allclose(open_model(scratch.path() / "merged", at::kFloat).weights.encoder.blocks[0].self_attention.q,
                           expected));
  EXPECT_FALSE(has_adapters(scratch.path() / "merged"));
}

// github.com/huggingface/peft, tuners/lora and utils/save_and_load: the wrapper's prefix, no name of the adapter.
TEST_F(AdaptersTest, HavePeftsNames) {
  const auto stored = list_safetensors(folder / "adapter_model.safetensors");
  ASSERT_EQ(stored.size(), 2u);
  EXPECT_TRUE(stored.contains("base_model.model.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight"));
  EXPECT_TRUE(stored.contains("base_model.model.encoder.block.0.layer.0.SelfAttention.q.lora_B.weight"));
  const auto json = parse_json(read_file(folder / "adapter_config.json"), "test");
  EXPECT_EQ(json.at("peft_type"), "LORA");
  EXPECT_EQ(json.at("r"), 3);
  EXPECT_EQ(json.at("target_modules"), Json::array({"encoder.block.0.layer.0.SelfAttention.q"}));
}

TEST_F(AdaptersTest, RefuseWhatTheyCannotBe) {
  const auto refused = [&](const std::string& key, const Json& value) {
    const auto before = read_file(folder / "adapter_config.json");
    set(key, value);
    const auto message = error_of([&] { open_model(folder, at::kFloat); });
    write_file_atomically(folder / "adapter_config.json", before);
    return message;
  };
  EXPECT_THAT(refused("peft_type", "IA3"), HasSubstr("not LORA"));
  EXPECT_THAT(refused("use_dora", true), HasSubstr("use_dora = true"));
  EXPECT_THAT(refused("rank_pattern", {{"q", 8}}), HasSubstr("rank_pattern"));
  EXPECT_THAT(refused("bias", "all"), HasSubstr("bias"));
  EXPECT_THAT(refused("r", 4), HasSubstr("has rank 3"));
  EXPECT_THAT(refused("r", "three"), HasSubstr("expected a number \"r\""));
  EXPECT_THAT(refused("base_model_name_or_path", "nowhere"), HasSubstr("adapts the model in nowhere"));
  EXPECT_THAT(refused("base_model_name_or_path", folder.string()), HasSubstr("adapters itself"));
  EXPECT_NO_THROW(open_model(folder, at::kFloat));

  adapters.pairs[0].matrix = "encoder.block.7.weight";
  save_adapters(scratch.path() / "absent", config, adapters, {});
  EXPECT_THAT(error_of([&] { open_model(scratch.path() / "absent", at::kFloat); }),
              HasSubstr("encoder.block.7.weight, which"));
  adapters.pairs[0] = {kMatrix, at::randn({3, 5}), at::randn({9, 3})};
  save_adapters(scratch.path() / "shape", config, adapters, {});
  EXPECT_THAT(error_of([&] { open_model(scratch.path() / "shape", at::kFloat); }), HasSubstr("is for [9, 5]"));
}

}  // namespace
}  // namespace switchyard
