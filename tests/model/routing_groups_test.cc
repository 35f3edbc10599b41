#include "model/routing_groups.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace switchyard {
namespace {

using testing::HasSubstr;

ModelConfig sparse() {
  ModelConfig config;
  config.encoder_sparse_step = config.decoder_sparse_step = 2;
  config.routing.num_experts = 8;
  return config;
}

TEST(RoutingGroups, AreRunsOfWholeSequencesTheSameInBothStacks) {
  const auto tokens = [](int64_t group_size, const BatchShape& shape, int64_t length) {
    RoutingConfig routing;
    routing.group_size = group_size;
    return group_tokens(routing, 8, shape, length);
  };
  EXPECT_EQ(tokens(1024, {8, 512, 114}, 512), 1024);
  EXPECT_EQ(tokens(1024, {8, 512, 114}, 114), 228);
  EXPECT_EQ(tokens(1024, {8, 300, 70}, 300), 900);  // three sequences fit
  EXPECT_EQ(tokens(1024, {8, 300, 70}, 70), 210);
  EXPECT_EQ(tokens(100, {8, 512, 114}, 512), 512);  // at least one
  EXPECT_EQ(tokens(0, {8, 512, 114}, 114), 114);
}

TEST(RoutingGroups, MeshAndT5xCountEqualGroupsOverTheStack) {
  RoutingConfig routing;
  routing.group_rule = GroupRule::kMesh;
  EXPECT_EQ(group_tokens(routing, 8, {3, 500, 114}, 500), 1500);  // above group_size
  EXPECT_EQ(group_tokens(routing, 8, {8, 512, 114}, 512), 1024);
  EXPECT_EQ(group_tokens(routing, 8, {8, 512, 114}, 114), 912);
  routing.group_rule = GroupRule::kT5x;
  routing.group_size = 4096;
  EXPECT_EQ(group_tokens(routing, 8, {16, 512, 114}, 512), 1024);  // eight groups, for eight experts
}

TEST(RoutingGroups, ABatchIsCutBetweenGroups) {
  auto config = sparse();
  const BatchShape shape{8, 512, 114};
  EXPECT_EQ(sequences_per_cut(config, shape), 2);
  EXPECT_EQ(sequences_per_cut(config, {8, 300, 70}), 3);
  EXPECT_EQ(sequences_per_cut(config, {1, 512, 114}), 1);
  config.routing.group_size = 0;
  EXPECT_EQ(sequences_per_cut(config, shape), 1);
  config.routing.group_size = 1024;
  config.routing.group_rule = GroupRule::kMesh;
  EXPECT_EQ(sequences_per_cut(config, shape), 8);  // the decoder's 912 tokens are one group
  config.routing = sparse().routing;
  for (auto* coefficient : {&config.routing.importance_loss_coef, &config.routing.load_loss_coef}) {
    *coefficient = 0.01;
    EXPECT_EQ(sequences_per_cut(config, shape), 8);
    *coefficient = 0.0;
  }
  config.routing.load_balance_scope = LoadBalanceScope::kBatch;
  EXPECT_EQ(sequences_per_cut(config, shape), 8);
  EXPECT_EQ(sequences_per_cut(ModelConfig{}, shape), 1);
}

TEST(RoutingGroups, ARefusedCutNamesTheLegalSizes) {
  auto config = sparse();
  const BatchShape shape{8, 512, 114};
  for (const int64_t size : {0, 2, 4, 6, 8, 9}) EXPECT_NO_THROW(check_micro_batch(config, shape, size)) << size;
  const auto refusal = [&](int64_t size) {
    try {
      check_micro_batch(config, shape, size);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(refusal(1), AllOf(HasSubstr("micro_batch_size = 1"), HasSubstr("one of 2, 4, 6")));
  EXPECT_THAT(refusal(3), HasSubstr("one of 2, 4, 6"));
  config.routing.importance_loss_coef = 0.01;
  EXPECT_THAT(refusal(4), AllOf(HasSubstr("whole batch"), Not(HasSubstr("one of"))));
}

TEST(RoutingGroups, EvaluationTakesWholeGroups) {
  RoutingConfig routing;
  routing.num_experts = 8;
  EXPECT_EQ(evaluation_batch_size(routing, 512, 1), 2);
  EXPECT_EQ(evaluation_batch_size(routing, 512, 3), 4);
  EXPECT_EQ(evaluation_batch_size(routing, 2000, 3), 3);
  routing.group_rule = GroupRule::kMesh;
  EXPECT_EQ(evaluation_batch_size(routing, 300, 1), 4);  // 1,200 tokens: the fewest that reach 1,024
  routing.num_experts = 0;
  EXPECT_EQ(evaluation_batch_size(routing, 300, 1), 1);
}

}  // namespace
}  // namespace switchyard
