#include "train/run_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/model_directory.h"

namespace switchyard {
namespace {

using testing::HasSubstr;

const char* const kRun = R"(
[model]
preset = "switch-mini-8"
num_experts = 16
[data]
text = ["a.txt", "/data/b.jsonl.gz"]
vocab = "spiece.model"
[optimizer]
learning_rate = 0.02
)";

RunConfig resolve(const std::string& text) { return resolve_run(parse_toml(text, "run.toml"), "/runs"); }

std::string refusal(const std::string& more) {
  try {
    resolve(std::string(kRun) + more);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(RunConfig, KeysFollowThePresetAndPathsTheFile) {
  const auto run = resolve(kRun);
  EXPECT_EQ(run.model.d_model, 256);
  EXPECT_EQ(run.model.routing.num_experts, 16);
  EXPECT_EQ(run.data.text, (std::vector<std::string>{"/runs/a.txt", "/data/b.jsonl.gz"}));
  EXPECT_EQ(run.optimizer.learning_rate, 0.02);
  EXPECT_EQ(run.train.steps, 1000);
}

TEST(RunConfig, ResolvedTomlGivesTheSameRun) {
  const auto run = resolve(kRun);
  EXPECT_EQ(run_to_toml(resolve(run_to_toml(run))), run_to_toml(run));
}

// A convention sets its keys before the file's own, wherever either stands.
TEST(RunConfig, RoutingSectionAndConventions) {
  const auto run = resolve(std::string(kRun) + "[routing]\nconvention = \"t5x\"\ncapacity_rounding = \"ceil\"\n");
  EXPECT_EQ(run.model.routing.load_balance_layers, LoadBalanceLayers::kMean);
  EXPECT_EQ(run.model.routing.capacity_rounding, CapacityRounding::kCeil);
  EXPECT_EQ(run.model.routing.num_experts, 16);
  EXPECT_EQ(run_to_toml(resolve(run_to_toml(run))), run_to_toml(run));
  EXPECT_THAT(refusal("[routing]\nconvention = \"jax\"\n"), HasSubstr("paper, mesh, t5x, hf"));
  EXPECT_THAT(refusal("[routing]\ndrop_prioriti = \"batch\"\n"), HasSubstr("drop_priority"));
}

// A run that goes on from a model's weights takes their shapes, by which the checkpoint of a run is meant, too.
TEST(RunConfig, InitRefusesKeysThatAskForOtherWeights) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "run_config_init";
  std::filesystem::remove_all(folder);
  auto config = preset("switch-tiny-4");
  config.vocab_size = 128;
  const auto checkpoint = folder / "run/checkpoints/step-000001";
  save_model(checkpoint, config, initialize(config, 1));
  const auto with = [&](const std::string& keys) {
    return "[model]\ninit = \"" + (folder / "run").string() + "\"\n" + keys +
           "[data]\ntext = [\"a.txt\"]\nvocab = \"spiece.model\"\n";
  };
  EXPECT_EQ(resolve(with("dropout_rate = 0.25\njitter_noise = 0.0\n")).model.dropout_rate, 0.25);
  const auto refused = [&](const std::string& keys) {
    try {
      resolve(with(keys));
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(refused("dropout_rate = 0.5\nnum_experts = 8\n"),
              testing::AllOf(HasSubstr("num_experts = 8 (there 4)"),
                             HasSubstr("router.classifier.weight [8, 64] in place of [4, 64]"),
                             HasSubstr("--upcycle-experts"), testing::Not(HasSubstr("dropout_rate"))));
  EXPECT_THAT(refused("num_encoder_layers = 1\nencoder_sparse_step = 1\n"),
              HasSubstr("num_encoder_layers = 1 (there 2)"));
  EXPECT_THAT(refused("gated = true\n"), HasSubstr("gated = true (there false)"));
  EXPECT_THAT(refused("d_model = 32\n"), HasSubstr("d_model = 32 (there 64)"));
  EXPECT_THAT(refused("tie_output = false\n"), HasSubstr("lm_head.weight [128, 64], which is not there"));
  std::filesystem::remove_all(folder);
}

// T5 scales where it ties; either can be said alone.
TEST(RunConfig, ScalingFollowsTyingUnlessItIsSaid) {
  const auto model = [](const std::string& keys) {
    return resolve("[model]\npreset = \"t5-mini\"\n" + keys + "[data]\ntext = [\"a\"]\nvocab = \"v\"\n").model;
  };
  EXPECT_TRUE(model("").scale_output);
  EXPECT_FALSE(model("tie_output = false\n").scale_output);
  EXPECT_TRUE(model("tie_output = false\nscale_output = true\n").scale_output);
  EXPECT_TRUE(model("scale_output = false\n").tie_output);
}

// [routing] takes keys that [model] has as well.
TEST(RunConfig, TwoPlacesOfOneKeyAreAConflictUnlessOneIsSet) {
  const auto conflict = refusal("[routing]\nnum_experts = 8\n");
  EXPECT_THAT(conflict, HasSubstr("run.toml:4: model.num_experts = 16"));
  EXPECT_THAT(conflict, HasSubstr("run.toml:11: routing.num_experts = 8"));
  EXPECT_EQ(resolve(std::string(kRun) + "[routing]\nnum_experts = 16\n").model.routing.num_experts, 16);
  for (const std::string section : {"model", "routing"}) {
    for (const std::string file : {kRun, "[routing]\nnum_experts = 8\n[data]\ntext = [\"a\"]\nvocab = \"v\"\n"}) {
      auto document = parse_toml(file, "run.toml");
      apply_setting(document, section + ".num_experts=4");
      EXPECT_EQ(resolve_run(document, "/runs").model.routing.num_experts, 4) << section << file;
    }
  }
}

TEST(RunConfig, RefusesWhatItCannotDo) {
  EXPECT_THAT(refusal("[trian]\nsteps = 1\n"), HasSubstr("[train]"));
  EXPECT_THAT(refusal("[train]\nbatch_size = 0\n"), HasSubstr("batch_size"));
  EXPECT_THAT(refusal("[parallel]\nexpert = 0\n"), HasSubstr("parallel.expert = 0"));
  EXPECT_THAT(refusal("[parallel]\nexpert = \"all\"\n"), HasSubstr("an integer or \"auto\""));
  EXPECT_EQ(refusal("[parallel]\nexpert = \"auto\"\n"), "accepted");
}

TEST(RunConfig, HelpListsEveryKey) {
  const std::string help = describe_run_config();
  for (const char* key :
       {"encoder_length", "capacity_factor", "learning_rate", "save_every", "expert_dropout_rate", "tensor"})
    EXPECT_THAT(help, HasSubstr(key));
}

}  // namespace
}  // namespace switchyard
