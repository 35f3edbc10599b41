#include "checkpoint/model_directory.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include <cmath>

#include "base/config.h"
#include "base/error.h"
#include "base/files.h"
#include "checkpoint/hf_config.h"
#include "checkpoint/stored_tensors.h"
#include "checkpoint/testing.h"
#include "model/routing_variants.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::ThrowsMessage;

NamedTensors stored(const fs::path& folder) { return read_all(list_model_tensors(folder)); }

void edit_config(const fs::path& folder, const std::function<void(Json&)>& change) {
  auto json = parse_json(read_file(folder / "config.json"), "config.json");
  change(json);
  write_file_atomically(folder / "config.json", json.dump());
}

class RoundTrip : public testing::TestWithParam<std::tuple<const char*, bool, bool>> {};

TEST_P(RoundTrip, KeepsConfigAndEveryBit) {
  const auto& [name, gated, tie_output] = GetParam();
  auto config = small_model(name, gated, tie_output);
  config.routing.router_bias = config.has_sparse_layers();
  const auto weights = initialize(config, 3);
  ScratchFolder folder;
  save_model(folder / "model", config, weights);
  const auto loaded = open_model(folder / "model", at::kFloat);
  EXPECT_EQ(fields_to_json(loaded.config), fields_to_json(config));
  EXPECT_EQ(fields_to_json(open_config(folder / "model")), fields_to_json(config));
  expect_equal_weights(config, weights, loaded.weights);
}

INSTANTIATE_TEST_SUITE_P(Models, RoundTrip,
                         testing::Combine(testing::Values("switch-tiny-4", "t5-tiny"), testing::Bool(),
                                          testing::Bool()));

// The meta device has shapes and no values: enough to see that nothing stays behind on the host.
TEST(ModelDirectory, OpensAndStartsOnAnyDevice) {
  ScratchFolder folder;
  const auto config = small_model("switch-tiny-4");
  save_model(folder / "model", config, initialize(config, 3));
  auto started = initialize(config, 3, at::kMeta);
  auto opened = open_model(folder / "model", at::kFloat, at::kMeta).weights;
  for (auto* weights : {&started, &opened})
    for (const auto& [spec, tensor] : list_parameters(config, *weights)) {
      EXPECT_TRUE(tensor->is_meta()) << spec.name;
      EXPECT_EQ(tensor->sizes(), at::IntArrayRef(spec.shape)) << spec.name;
    }
  const auto lazy = open_for_inference(folder / "model", at::kBFloat16, at::kMeta).weights;
  EXPECT_TRUE(lazy.output.is_meta() && lazy.encoder.blocks[1].feed_forward.experts.wi.is_meta());
  EXPECT_EQ(lazy.encoder.blocks[1].feed_forward.experts.wi.scalar_type(), at::kBFloat16);
}

TEST(ModelDirectory, EveryRoutingVariantComesBack) {
  for (const auto& variant : routing_variants()) {
    SCOPED_TRACE(variant.name);
    auto base = small_model("switch-tiny-4");
    base.num_encoder_layers = base.num_decoder_layers = 4;
    const auto config = with_variant(base, variant);
    auto weights = initialize(config, 3);
    for (auto& [spec, tensor] : list_parameters(config, weights))
      if (spec.is_buffer()) tensor->fill_(0.25);
    ScratchFolder folder;
    save_model(folder / "model", config, weights);
    const auto loaded = open_model(folder / "model", at::kFloat);
    EXPECT_EQ(fields_to_json(loaded.config), fields_to_json(config));
    expect_equal_weights(config, weights, loaded.weights);
    const auto lazy = open_for_inference(folder / "model", at::kFloat);
    EXPECT_EQ(fields_to_json(lazy.config), fields_to_json(config));
  }
}

TEST(ModelDirectory, SaysWhatTransformersCannotCompute) {
  auto config = small_model("switch-tiny-4");
  EXPECT_TRUE(beyond_hf(config).empty());
  config.routing.shared_expert_d_ff = 16;
  config.routing.num_selected_experts = 2;
  EXPECT_EQ(beyond_hf(config), (std::vector<std::string>{"2 experts a token", "a shared expert"}));
  config = small_model("switch-tiny-4");
  config.encoder_sparse_step = 0;
  config.sparse_encoder_layers = {0};
  EXPECT_EQ(beyond_hf(config), (std::vector<std::string>{"the sparse blocks of the encoder"}));
}

// Names and shapes as HF lists them (transformers 5.23.0).
TEST(ModelDirectory, HoldsHfsNames) {
  ScratchFolder folder;
  const auto config = small_model("switch-tiny-4");
  auto weights = initialize(config, 3);
  save_model(folder / "model", config, weights);
  const auto tensors = stored(folder / "model");
  EXPECT_EQ(tensors.at("encoder.block.1.layer.1.mlp.experts.expert_3.wi.weight").sizes(),
            (std::vector<int64_t>{128, 64}));
  EXPECT_EQ(tensors.at("decoder.block.1.layer.2.mlp.experts.expert_0.wo.weight").sizes(),
            (std::vector<int64_t>{64, 128}));
  EXPECT_EQ(tensors.at("decoder.block.1.layer.2.mlp.router.classifier.weight").sizes(), (std::vector<int64_t>{4, 64}));
  EXPECT_EQ(tensors.at("decoder.block.0.layer.2.mlp.wi.weight").sizes(), (std::vector<int64_t>{128, 64}));
  EXPECT_EQ(tensors.at("decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight").sizes(),
            (std::vector<int64_t>{32, 2}));
  for (const char* absent : {"lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"})
    EXPECT_FALSE(tensors.contains(absent)) << absent;
  EXPECT_TRUE(at::equal(tensors.at("encoder.block.1.layer.1.mlp.experts.expert_2.wo.weight"),
                        weights.encoder.blocks[1].feed_forward.wo.select(0, 2)));

  const auto untied = small_model("switch-tiny-4", false, false);
  weights = initialize(untied, 3);
  save_model(folder / "untied", untied, weights);
  const auto four = stored(folder / "untied");
  EXPECT_TRUE(at::equal(four.at("lm_head.weight"), weights.lm_head));
  for (const char* name : {"shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"})
    EXPECT_TRUE(at::equal(four.at(name), weights.shared)) << name;

  save_model(folder / "t5", small_model("t5-tiny", true, false), initialize(small_model("t5-tiny", true, false), 3));
  const auto t5 = stored(folder / "t5");
  EXPECT_TRUE(t5.contains("encoder.block.0.layer.1.DenseReluDense.wi_1.weight"));
  EXPECT_FALSE(t5.contains("encoder.embed_tokens.weight"));
}

TEST(ModelDirectory, StoresAndReadsHalfPrecision) {
  ScratchFolder folder;
  const auto config = small_model("switch-tiny-4");
  const auto weights = initialize(config, 3);
  for (const auto dtype : {at::kBFloat16, at::kHalf}) {
    const auto path = folder / c10::toString(dtype);
    save_model(path, config, weights, {.dtype = dtype});
    EXPECT_EQ(stored(path).at("shared.weight").scalar_type(), dtype);
    auto rounded = weights;
    for (auto& parameter : list_parameters(config, rounded)) *parameter.tensor = parameter.tensor->to(dtype);
    expect_equal_weights(config, rounded, open_model(path, dtype).weights);
    for (auto& parameter : list_parameters(config, rounded)) *parameter.tensor = parameter.tensor->to(at::kFloat);
    expect_equal_weights(config, rounded, open_model(path, at::kFloat).weights);
  }
}

TEST(ModelDirectory, ShardsAndFindsThemAgain) {
  ScratchFolder folder;
  const auto config = small_model("switch-tiny-4");
  const auto weights = initialize(config, 3);
  save_model(folder / "model", config, weights, {.max_shard_bytes = 100'000});
  EXPECT_FALSE(fs::exists(folder / "model/model.safetensors"));
  const auto index = parse_json(read_file(folder / "model/model.safetensors.index.json"), "index");
  std::set<std::string> files;
  for (const auto& [name, file] : index.at("weight_map").items()) files.insert(file);
  EXPECT_GT(files.size(), 3u);
  for (const auto& file : files) EXPECT_LE(fs::file_size(folder / "model" / file), 110'000u) << file;
  expect_equal_weights(config, weights, open_model(folder / "model", at::kFloat).weights);

  fs::remove(folder / "model" / *files.begin());
  EXPECT_THAT([&] { open_model(folder / "model", at::kFloat); }, ThrowsMessage<Error>(HasSubstr(*files.begin())));
}

TEST(ModelDirectory, AnIndexCannotLeadOutOfTheFolder) {
  ScratchFolder folder;
  const auto config = small_model("t5-tiny");
  save_model(folder / "model", config, initialize(config, 3));
  fs::rename(folder / "model/model.safetensors", folder / "outside.safetensors");
  for (const std::string& file : {std::string("../outside.safetensors"), (folder / "outside.safetensors").string(),
                                  std::string("a/../../outside.safetensors"), std::string()}) {
    write_file_atomically(folder / "model/model.safetensors.index.json",
                          Json{{"weight_map", {{"shared.weight", file}}}}.dump());
    EXPECT_THAT([&] { open_model(folder / "model", at::kFloat); },
                ThrowsMessage<Error>(HasSubstr("outside the model's folder")))
        << file;
  }
  for (const char* text : {"[]", "{}", R"({"weight_map": {"a": 1}})", "{"}) {
    write_file_atomically(folder / "model/model.safetensors.index.json", text);
    EXPECT_THROW(open_model(folder / "model", at::kFloat), Error) << text;
  }
  // Each bracket would take fifty bytes.
  write_file_atomically(folder / "model/model.safetensors.index.json", std::string(1 << 24, '['));
  EXPECT_THAT([&] { open_model(folder / "model", at::kFloat); },
              ThrowsMessage<Error>(HasSubstr("model.safetensors.index.json: JSON nested deeper")));
}

TEST(ModelDirectory, NamesEverythingWrongInOneMessage) {
  ScratchFolder folder;
  const auto config = small_model("switch-tiny-4");
  save_model(folder / "model", config, initialize(config, 3));
  rewrite_tensors(folder / "model", [](NamedTensors& tensors) {
    tensors.erase("encoder.block.1.layer.1.mlp.experts.expert_1.wi.weight");
    tensors.erase("decoder.final_layer_norm.weight");
    tensors["decoder.block.0.layer.2.mlp.wo.weight"] = at::zeros({128, 64});
    tensors["shared.weight"] = at::zeros({128, 64}, at::kLong);
    tensors["encoder.block.0.layer.1.mlp.wi.bias"] = at::zeros({128});
  });
  EXPECT_THAT(
      [&] { open_model(folder / "model", at::kFloat); },
      ThrowsMessage<Error>(AllOf(
          HasSubstr("2 missing, 1 unknown, 2 wrong"),
          HasSubstr("missing: encoder.block.1.layer.1.mlp.experts.expert_1.wi.weight [128, 64]"),
          HasSubstr("missing: decoder.final_layer_norm.weight [64]"),
          HasSubstr("wrong: decoder.block.0.layer.2.mlp.wo.weight is F32 [128, 64], expected floating [64, 128]"),
          HasSubstr("wrong: shared.weight is I64"), HasSubstr("unknown: encoder.block.0.layer.1.mlp.wi.bias [128]"))));
}

TEST(ModelDirectory, TheMessageIsBoundedAndSoIsItsCost) {
  ScratchFolder folder;
  const auto config = small_model("switch-tiny-4");
  save_model(folder / "model", config, initialize(config, 3));
  const auto refused_with = [&](int64_t num_experts, const char* text) {
    edit_config(folder / "model", [&](Json& json) { json["num_experts"] = num_experts; });
    try {
      open_model(folder / "model", at::kFloat);
      FAIL() << "opened";
    } catch (const Error& error) {
      EXPECT_LT(std::string(error.what()).size(), 6000u);
      EXPECT_THAT(error.what(), HasSubstr(text));
    }
  };
  refused_with(30, "missing: ... and 96 more");  // 2 layers, 2 tensors, 26 experts, 8 of them named
  refused_with(int64_t{1} << 26, "67108864 experts expected");
}

TEST(ModelDirectory, WritesTokenizerFilesAndNeverOverAModel) {
  ScratchFolder folder;
  const auto config = small_model("t5-tiny");
  const auto weights = initialize(config, 3);
  const std::string vocabulary("\n\0bytes", 7);
  save_model(folder / "model", config, weights, {.vocabulary = vocabulary});
  EXPECT_EQ(read_vocabulary(folder / "model"), vocabulary);
  const auto tokens = parse_json(read_file(folder / "model/special_tokens_map.json"), "tokens");
  EXPECT_EQ(tokens.at("additional_special_tokens").size(), 100u);
  EXPECT_THAT([&] { save_model(folder / "model", config, weights); },
              ThrowsMessage<Error>(HasSubstr("already holds a model")));
  EXPECT_EQ(read_vocabulary(folder.path()), "");
}

TEST(ModelDirectory, ASaveThatWasCutShortNeitherOpensNorDisturbs) {
  ScratchFolder folder;
  const auto config = small_model("t5-tiny");
  const auto weights = initialize(config, 3);
  // A save that fails before its last file, as if it were killed there.
  fs::create_directories(folder / "model/generation_config.json");
  EXPECT_THROW(save_model(folder / "model", config, weights, {.max_shard_bytes = 100'000}), Error);
  EXPECT_TRUE(fs::exists(folder / "model/model.safetensors.index.json"));
  EXPECT_THAT([&] { open_model(folder / "model", at::kFloat); },
              ThrowsMessage<Error>(HasSubstr("config.json is missing")));
  fs::remove(folder / "model/generation_config.json");
  const auto other = initialize(config, 4);
  save_model(folder / "model", config, other);
  EXPECT_FALSE(fs::exists(folder / "model/model.safetensors.index.json"));
  expect_equal_weights(config, other, open_model(folder / "model", at::kFloat).weights);
  EXPECT_THAT([&] { open_model(folder / "nothing", at::kFloat); }, ThrowsMessage<Error>(HasSubstr("is not a folder")));
}

TEST(ModelDirectory, ASaveRemovesNothingThatWasThere) {
  ScratchFolder folder;
  const auto config = small_model("t5-tiny");
  const auto weights = initialize(config, 3);
  for (const char* name : {"model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"}) {
    write_file_atomically(folder / name, "precious");
    EXPECT_THAT([&] { save_model(folder.path(), config, weights); },
                ThrowsMessage<Error>(AllOf(HasSubstr("holds weights without a config.json"), HasSubstr(name))));
    EXPECT_EQ(read_file(folder / name), "precious");
    fs::remove(folder / name);
  }
  write_file_atomically(folder / "model_b.safetensors", "precious");
  save_model(folder.path(), config, weights);
  EXPECT_EQ(read_file(folder / "model_b.safetensors"), "precious");
  expect_equal_weights(config, weights, open_model(folder.path(), at::kFloat).weights);
}

}  // namespace
}  // namespace switchyard
