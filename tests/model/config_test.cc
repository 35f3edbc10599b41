#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/config.h"
#include "base/error.h"
#include "model/flops.h"
#include "model/parameters.h"

namespace switchyard {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

int64_t count_parameters(const ModelConfig& config) {
  int64_t total = 0;
  for (const auto& spec : parameter_specs(config)) total += spec.numel();
  return total;
}

// Printed figures: Switch Tables 8 and 9, the T5 and mT5 papers, and released checkpoints, with as many digits as are
// printed there or follow from the released shapes.
struct PrintedCount {
  const char* preset;
  double parameters, unit;  // parameters in units of `unit`, exact to the last digit printed
};

class PresetCount : public testing::TestWithParam<PrintedCount> {};

TEST_P(PresetCount, EqualsThePrintedParameters) {
  const auto& [name, parameters, unit] = GetParam();
  const auto config = preset(name);
  validate(config);
  EXPECT_DOUBLE_EQ(std::round(static_cast<double>(count_parameters(config)) / unit),
                   std::round(parameters * 1e9 / unit))
      << name;
}

INSTANTIATE_TEST_SUITE_P(
    Printed, PresetCount,
    testing::Values(PrintedCount{"t5-small", 0.0605, 1e5}, PrintedCount{"t5-base", 0.2229, 1e5},
                    PrintedCount{"t5-large", 0.7377, 1e5}, PrintedCount{"t5-3b", 2.852, 1e6},
                    PrintedCount{"t5-11b", 11.31, 1e7}, PrintedCount{"mt5-base", 0.5824, 1e5},
                    PrintedCount{"switch-base-8", 0.619339008, 1}, PrintedCount{"switch-base-16", 1.072, 1e6},
                    PrintedCount{"switch-base-32", 1.98, 1e7}, PrintedCount{"switch-base-64", 3.791, 1e6},
                    PrintedCount{"switch-base-128", 7.415, 1e6}, PrintedCount{"switch-base-256", 14.66, 1e7},
                    PrintedCount{"switch-large-128", 26.31, 1e7}, PrintedCount{"switch-xxl", 394.7, 1e8},
                    PrintedCount{"switch-c", 1571.3, 1e8}, PrintedCount{"moe-base-2", 0.280, 1e6},
                    PrintedCount{"moe-base-4", 0.393, 1e6}, PrintedCount{"moe-base-128", 7.415, 1e6}),
    [](const auto& given) {
      std::string name = given.param.preset;
      for (char& letter : name)
        if (letter == '-') letter = '_';
      return name;
    });

// Forward FLOPs of 512 + 114 tokens: table 9, and of the top-2 baseline what two experts a token cost more than one.
TEST(Preset, HasThePrintedFlops) {
  const auto billions = [](const char* name) { return forward_flops(preset(name), 512, 114) / 1e9; };
  EXPECT_NEAR(billions("t5-base"), 124.6, 0.05);
  EXPECT_NEAR(billions("switch-base-128"), 124.6, 0.05);
  EXPECT_NEAR(billions("switch-large-128"), 424.9, 0.05);
  EXPECT_NEAR(billions("switch-xxl"), 6260, 5);
  EXPECT_NEAR(billions("switch-c"), 869, 0.5);
  EXPECT_NEAR(billions("moe-base-128"), 160.0, 0.05);
  const auto& routing = preset("moe-base-128").routing;
  EXPECT_EQ(routing.num_selected_experts, 2);
  EXPECT_EQ(expert_capacity(routing, 1024, true), 16);  // 1024 * 2.0 / 128
  EXPECT_EQ(expert_capacity(routing, 1024, false), 16);
}

TEST(Preset, EveryNameGivesAValidConfig) {
  const auto names = preset_names();
  EXPECT_GE(names.size(), 27u);
  for (const auto& name : names) EXPECT_NO_THROW(validate(preset(name))) << name;
}

TEST(Preset, AnUnknownNameIsAnsweredWithTheNearest) {
  EXPECT_THAT([] { (void)preset("swich-base-8"); }, ThrowsMessage<Error>(HasSubstr("did you mean \"switch-base-8\"")));
}

TEST(SparseLayers, AreTheLastOfEachStep) {
  auto config = preset("switch-base-8");
  for (int64_t block = 0; block < 12; ++block)
    EXPECT_EQ(config.is_sparse_encoder_layer(block), block % 2 == 1) << block;
  config.decoder_sparse_step = 4;  // T5X: 3, 7, 11; HF's rule would give 1, 5, 9
  std::vector<int64_t> sparse;
  for (int64_t block = 0; block < 12; ++block)
    if (config.is_sparse_decoder_layer(block)) sparse.push_back(block);
  EXPECT_EQ(sparse, (std::vector<int64_t>{3, 7, 11}));
  config.sparse_decoder_layers = {0, 5};
  EXPECT_TRUE(config.is_sparse_decoder_layer(0));
  EXPECT_FALSE(config.is_sparse_decoder_layer(3));
  config.routing.num_experts = 0;
  EXPECT_FALSE(config.is_sparse_decoder_layer(0));
  EXPECT_FALSE(preset("t5-small").has_sparse_layers());
}

// Rounding examples of Mesh's rule, and the capacities of the released training configurations.
TEST(ExpertCapacity, FollowsMeshsRounding) {
  RoutingConfig routing;
  routing.train_capacity_factor = 1.25;
  routing.num_experts = 128;
  EXPECT_EQ(expert_capacity(routing, 1024, true), 10);
  EXPECT_EQ(expert_capacity(routing, 1024, false), 16);
  routing.num_experts = 8;
  EXPECT_EQ(expert_capacity(routing, 100, true), 15);  // 15.625
  routing.train_capacity_factor = 1.0;
  EXPECT_EQ(expert_capacity(routing, 108, true), 13);  // 13.5
  EXPECT_EQ(expert_capacity(routing, 30, true), 4);    // 3.75, raised to the minimum
  routing.train_capacity_factor = 100.0;
  EXPECT_EQ(expert_capacity(routing, 30, true), 30);  // never above the group
  routing.expert_capacity = 64;
  EXPECT_EQ(expert_capacity(routing, 1024, true), 64);
  EXPECT_EQ(expert_capacity(routing, 1024, false), 64);
  EXPECT_EQ(expert_capacity(preset("switch-base-128").routing, 8192, true), 80);
  EXPECT_EQ(expert_capacity(preset("switch-base-128").routing, 8192, false), 128);
  EXPECT_EQ(expert_capacity(preset("switch-large-128").routing, 4096, true), 40);
  EXPECT_EQ(expert_capacity(preset("switch-xxl").routing, 4096, false), 128);
  EXPECT_EQ(expert_capacity(preset("switch-c").routing, 2048, true), 2);
}

struct BadConfig {
  const char* name;
  void (*damage)(ModelConfig&);
  const char* message;
};

class Validate : public testing::TestWithParam<BadConfig> {};

TEST_P(Validate, NamesTheField) {
  auto config = preset("switch-tiny-4");
  GetParam().damage(config);
  EXPECT_THAT([&] { validate(config); }, ThrowsMessage<Error>(HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Fields, Validate,
    testing::Values(
        BadConfig{"width", [](ModelConfig& c) { c.d_model = 0; }, "model.d_model is 0"},
        BadConfig{"huge", [](ModelConfig& c) { c.d_ff = int64_t{1} << 62; }, "model.d_ff is"},
        BadConfig{"layers", [](ModelConfig& c) { c.num_decoder_layers = 1000000; },
                  "model.num_decoder_layers is 1000000"},
        BadConfig{"dropout", [](ModelConfig& c) { c.dropout_rate = 1.0; }, "model.dropout_rate is 1"},
        BadConfig{"not_a_number", [](ModelConfig& c) { c.expert_dropout_rate = std::nan(""); },
                  "model.expert_dropout_rate"},
        BadConfig{"buckets", [](ModelConfig& c) { c.relative_attention_num_buckets = 30; }, "multiple of 4"},
        BadConfig{"distance", [](ModelConfig& c) { c.relative_attention_max_distance = 16; },
                  "relative_attention_max_distance is 16"},
        BadConfig{"step", [](ModelConfig& c) { c.encoder_sparse_step = 3; }, "model.encoder_sparse_step is 3"},
        BadConfig{"list", [](ModelConfig& c) { c.sparse_decoder_layers = {2}; },
                  "model.sparse_decoder_layers lists block 2"},
        BadConfig{"twice",
                  [](ModelConfig& c) {
                    c.sparse_encoder_layers = {1, 1};
                  },
                  "block 1 after 1"},
        BadConfig{"no_experts", [](ModelConfig& c) { c.routing.num_experts = 0; },
                  "model.num_experts is 0, but sparse layers"},
        BadConfig{"no_layer", [](ModelConfig& c) { c.encoder_sparse_step = c.decoder_sparse_step = 0; },
                  "no layer is sparse"},
        BadConfig{"factor", [](ModelConfig& c) { c.routing.train_capacity_factor = 0; },
                  "model.train_capacity_factor is 0"},
        BadConfig{"minimum", [](ModelConfig& c) { c.routing.min_expert_capacity = 0; },
                  "model.min_expert_capacity is 0"},
        BadConfig{"jitter", [](ModelConfig& c) { c.routing.jitter_noise = 1; }, "model.jitter_noise is 1"},
        BadConfig{"product",
                  [](ModelConfig& c) {
                    c.d_model = c.d_ff = int64_t{1} << 24;
                    c.routing.num_experts = int64_t{1} << 20;
                  },
                  "parameters; expected less than 2^56"}),
    [](const auto& given) { return given.param.name; });

TEST(ModelConfig, EveryFieldIsListedOnce) {
  const auto names = field_names<ModelConfig>();
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), names.size());
}

}  // namespace
}  // namespace switchyard
