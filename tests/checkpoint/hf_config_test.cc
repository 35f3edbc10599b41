#include "checkpoint/hf_config.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "checkpoint/testing.h"

namespace switchyard {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

std::vector<std::string> router_names(const std::vector<int64_t>& encoder, const std::vector<int64_t>& decoder) {
  std::vector<std::string> names;
  for (const int64_t block : encoder)
    names.push_back(join("encoder.block.", block, ".layer.1.mlp.router.classifier.weight"));
  for (const int64_t block : decoder)
    names.push_back(join("decoder.block.", block, ".layer.2.mlp.router.classifier.weight"));
  return names;
}

std::vector<std::string> router_names(const ModelConfig& config) {
  std::vector<int64_t> encoder, decoder;
  for (int64_t block = 0; block < config.num_encoder_layers; ++block)
    if (config.is_sparse_encoder_layer(block)) encoder.push_back(block);
  for (int64_t block = 0; block < config.num_decoder_layers; ++block)
    if (config.is_sparse_decoder_layer(block)) decoder.push_back(block);
  return router_names(encoder, decoder);
}

// google/switch-base-8's config.json, as published, without keys that carry nothing.
Json published_switch_base_8() {
  return Json::parse(R"({"architectures": ["SwitchTransformersForConditionalGeneration"], "d_ff": 3072, "d_kv": 64,
    "d_model": 768, "decoder_sparse_step": 2, "decoder_start_token_id": 0, "dropout_rate": 0.1, "encoder_sparse_step": 2,
    "eos_token_id": 1, "expert_capacity": 64, "initializer_factor": 1.0, "is_encoder_decoder": true,
    "layer_norm_epsilon": 1e-06, "model_type": "switch_transformers", "num_decoder_layers": 12, "num_experts": 8,
    "num_heads": 12, "num_layers": 12, "num_sparse_decoder_layers": 6, "num_sparse_encoder_layers": 6, "pad_token_id": 0,
    "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32, "router_aux_loss_coef": 0.001,
    "router_bias": false, "router_jitter_noise": 0.01, "router_z_loss_coef": 0.001, "use_cache": true, "vocab_size": 32128})");
}

Json published_t5(const std::string& changes = "{}") {
  auto json =
      Json::parse(R"({"d_ff": 2048, "d_kv": 64, "d_model": 512, "decoder_start_token_id": 0, "dropout_rate": 0.1,
    "eos_token_id": 1, "layer_norm_epsilon": 1e-06, "model_type": "t5", "n_positions": 512, "num_heads": 8, "num_layers": 6,
    "pad_token_id": 0, "relative_attention_num_buckets": 32, "vocab_size": 32128,
    "task_specific_params": {"summarization": {"prefix": "summarize: "}}})");
  json.update(Json::parse(changes));
  return json;
}

ModelConfig read(const Json& json, const std::vector<std::string>& names = {}) {
  return config_from_hf(json, "config.json", names);
}

// google/umt5-small's fields; read and written again.
TEST(HfConfig, Umt5HasATableEveryLayer) {
  auto json =
      published_t5(R"({"model_type": "umt5", "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false})");
  const auto config = read(json);
  EXPECT_TRUE(config.relative_bias_every_layer && config.gated && !config.scale_output);
  EXPECT_EQ(config.activation, Activation::kGeluNew);
  const auto written = config_to_hf(config, "float32");
  EXPECT_EQ(written["model_type"], "umt5");
  EXPECT_EQ(written["architectures"][0], "UMT5ForConditionalGeneration");
  EXPECT_EQ(fields_to_json(read(written)), fields_to_json(config));
  json["model_type"] = "t5";
  EXPECT_FALSE(read(json).relative_bias_every_layer);
  EXPECT_EQ(config_to_hf(read(json), "float32")["model_type"], "t5");
}

TEST(HfConfig, ReadsThePublishedSwitchBase) {
  const auto config = read(published_switch_base_8(), router_names({1, 3, 5, 7, 9, 11}, {1, 3, 5, 7, 9, 11}));
  EXPECT_EQ(config.d_ff, 3072);
  EXPECT_EQ(config.encoder_sparse_step, 2);
  EXPECT_EQ(config.decoder_sparse_step, 2);
  EXPECT_TRUE(config.sparse_encoder_layers.empty());
  EXPECT_TRUE(config.tie_output);
  EXPECT_FALSE(config.gated);
  EXPECT_EQ(config.routing.expert_capacity, 64);
  EXPECT_EQ(config.routing.group_size, 0);  // each sequence by itself
  EXPECT_DOUBLE_EQ(config.routing.router_z_loss_coef, 0.001);
  EXPECT_DOUBLE_EQ(config.dropout_rate, 0.1);
}

// Counts and steps in config.json do not say where the routers are: 3 of 12 are [1, 5, 9] for HF, [3, 7, 11] for T5X.
TEST(HfConfig, TakesSparsePositionsFromTheTensors) {
  auto config = read(published_switch_base_8(), router_names({1, 5, 9}, {3, 7, 11}));
  EXPECT_EQ(config.sparse_encoder_layers, (std::vector<int64_t>{1, 5, 9}));
  EXPECT_EQ(config.decoder_sparse_step, 4);
  EXPECT_TRUE(config.sparse_decoder_layers.empty());
  config = read(published_switch_base_8(), router_names({}, {0}));
  EXPECT_EQ(config.encoder_sparse_step, 0);
  EXPECT_EQ(config.sparse_decoder_layers, (std::vector<int64_t>{0}));
}

TEST(HfConfig, ReadsTheT5Family) {
  auto config = read(published_t5());
  EXPECT_EQ(config.num_decoder_layers, 6);
  EXPECT_EQ(config.relative_attention_max_distance, 128);
  EXPECT_EQ(config.activation, Activation::kRelu);
  EXPECT_TRUE(config.tie_output && config.scale_output);
  config = read(
      published_t5(R"({"feed_forward_proj": "gated-gelu", "tie_word_embeddings": false, "num_decoder_layers": 4})"));
  EXPECT_TRUE(config.gated);
  EXPECT_EQ(config.activation, Activation::kGeluNew);
  EXPECT_TRUE(config.tie_output && !config.scale_output);
  EXPECT_EQ(config.num_decoder_layers, 4);
  // As HF 5 saves what it read as above.
  config = read(published_t5(
      R"({"feed_forward_proj": "gated-silu", "tie_word_embeddings": true, "scale_decoder_outputs": false})"));
  EXPECT_EQ(config.activation, Activation::kSilu);
  EXPECT_TRUE(config.tie_output && !config.scale_output);
  config = read(published_t5(R"({"feed_forward_proj": "gelu"})"));
  EXPECT_EQ(config.activation, Activation::kGelu);
  EXPECT_FALSE(config.gated);
  config = read(published_t5(R"({"model_type": "mt5"})"));
  EXPECT_TRUE(config.gated);
  EXPECT_TRUE(config.tie_output && !config.scale_output);
}

// Both facts, in every form that a model may have; HF's words for them are those of 5.23.0.
TEST(HfConfig, KeepsTyingApartFromScaling) {
  for (const bool sparse : {false, true})
    for (const bool tie : {false, true})
      for (const bool scale : {false, true}) {
        auto config = preset(sparse ? "switch-tiny-4" : "t5-tiny");
        config.tie_output = tie;
        config.scale_output = scale;
        const auto json = config_to_hf(config, "float32");
        EXPECT_EQ(fields_to_json(read(json, sparse ? router_names({1}, {1}) : std::vector<std::string>{})),
                  fields_to_json(config));
        EXPECT_EQ(json["tie_word_embeddings"], sparse ? scale : scale || tie);
        EXPECT_EQ(json.contains("scale_decoder_outputs"), !sparse);
        EXPECT_EQ(json.value("scale_decoder_outputs", scale), scale);
      }
}

struct BadJson {
  const char* changes;
  const char* message;
};
void PrintTo(const BadJson& bad, std::ostream* out) { *out << bad.changes; }

class BadHfConfig : public testing::TestWithParam<BadJson> {};

TEST_P(BadHfConfig, IsRefusedWithFileAndKey) {
  EXPECT_THAT([&] { read(published_t5(GetParam().changes)); },
              ThrowsMessage<Error>(testing::AllOf(HasSubstr("config.json"), HasSubstr(GetParam().message))));
}

INSTANTIATE_TEST_SUITE_P(
    Cases, BadHfConfig,
    testing::Values(BadJson{R"({"model_type": "bert"})", "expected t5, mt5, umt5 or switch_transformers"},
                    BadJson{R"({"model_type": null})", "\"model_type\" is missing"},
                    BadJson{R"({"d_model": null})", "\"d_model\" is missing"},
                    BadJson{R"({"d_model": "512"})", "d_model"}, BadJson{R"({"d_model": -1})", "model.d_model is -1"},
                    BadJson{R"({"num_layers": 1000000000000})", "layers, expected 1 to 4096"},
                    BadJson{R"({"feed_forward_proj": "gated-tanh"})", "activation \"tanh\""},
                    BadJson{R"({"decoder_start_token_id": 5})", "decoder_start_token_id is 5, expected 0"},
                    BadJson{R"({"eos_token_id": [1, 2]})", "eos_token_id"},
                    BadJson{R"({"switchyard": {"d_modell": 3}})", "d_modell"},
                    BadJson{R"({"switchyard": 3})", "not an object"}));

TEST(HfConfig, SwitchNeedsItsCapacity) {
  auto json = published_switch_base_8();
  json.erase("expert_capacity");
  EXPECT_THAT([&] { read(json, router_names({1}, {1})); },
              ThrowsMessage<Error>(HasSubstr("\"expert_capacity\" is missing")));
}

TEST(HfConfig, RoundTripKeepsEveryFieldOfEveryPreset) {
  for (const auto& name : preset_names()) {
    auto config = preset(name);
    config.expert_dropout_rate = 0.4;
    config.dropout_rate = 0.05;
    config.initializer_scale = 0.3;
    config.layer_norm_epsilon = 1.5e-6;
    if (config.has_sparse_layers()) {
      config.routing.jitter_noise = 0.0;
      config.routing.router_z_loss_coef = 1.0 / 3;
      config.routing.eval_capacity_factor = 2.5;
    }
    const auto text = config_to_hf(config, "float32").dump();
    const auto read_back = read(parse_json(text, "text"), router_names(config));
    EXPECT_EQ(fields_to_json(read_back), fields_to_json(config)) << name;
  }
}

TEST(HfConfig, RoundTripKeepsWhatHfCannotSay) {
  auto config = preset("switch-tiny-4");
  config.num_encoder_layers = 5;
  config.sparse_encoder_layers = {0, 3};
  config.decoder_sparse_step = 0;
  config.gated = true;
  for (const auto activation : {Activation::kRelu, Activation::kGelu, Activation::kGeluNew, Activation::kSilu}) {
    config.activation = activation;
    EXPECT_EQ(fields_to_json(read(config_to_hf(config, "float32"), router_names(config))), fields_to_json(config))
        << to_word(activation);
    auto dense = preset("t5-tiny");
    dense.activation = activation;
    dense.gated = true;
    EXPECT_EQ(fields_to_json(read(config_to_hf(dense, "float32"))), fields_to_json(dense)) << to_word(activation);
  }
}

// What another program changed in the keys that it knows must not be undone by the block that it does not know.
TEST(HfConfig, KeysOfHfWinOverTheBlock) {
  auto json = config_to_hf(preset("switch-tiny-4"), "float32");
  json["vocab_size"] = 256;
  json["dropout_rate"] = 0.3;
  json["router_aux_loss_coef"] = 0.5;
  const auto config = read(json, router_names({1}, {1}));
  EXPECT_EQ(config.vocab_size, 256);
  EXPECT_DOUBLE_EQ(config.dropout_rate, 0.3);
  EXPECT_DOUBLE_EQ(config.routing.load_balance_loss_coef, 0.5);
  EXPECT_DOUBLE_EQ(config.routing.train_capacity_factor, 1.25);
}

// HF makes block i of L sparse if i % (L // count) is 1, or always if that step is 1; it must find our positions.
TEST(HfConfig, WritesCountsFromWhichHfDerivesThePositions) {
  const auto hf_positions = [](int64_t count, int64_t layers) {
    std::vector<int64_t> positions;
    const int64_t step = layers / count;
    for (int64_t i = 0; i < layers && step > 0; ++i)
      if (step == 1 || i % step == 1) positions.push_back(i);
    return positions;
  };
  struct Case {
    int64_t layers;
    std::vector<int64_t> positions;
  };
  for (const auto& [layers, positions] : {Case{12, {1, 3, 5, 7, 9, 11}}, Case{12, {1, 5, 9}}, Case{3, {0, 1, 2}},
                                          Case{4, {1}}, Case{4, {1, 3}}, Case{1, {0}}, Case{7, {}}}) {
    auto config = preset("switch-tiny-4");
    config.num_encoder_layers = layers;
    config.encoder_sparse_step = 0;
    config.sparse_encoder_layers = positions;
    const auto json = config_to_hf(config, "float32");
    EXPECT_EQ(hf_positions(json.at("num_sparse_encoder_layers"), layers), positions) << layers;
  }
}

}  // namespace
}  // namespace switchyard
