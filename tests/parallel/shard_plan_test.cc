#include "parallel/shard_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "testing/model.h"

namespace switchyard {
namespace {

using testing::ElementsAre;

// 5 experts, 3 heads of 4, feed-forward of 6 and 10 ids: nothing divides by 2 or 4.
ModelConfig awkward_config() {
  auto config = test::tiny_model();
  config.vocab_size = 10;
  config.d_model = 8;
  config.d_kv = 4;
  config.d_ff = 6;
  config.encoder_attention_sparse_step = 1;
  config.routing.num_experts = 5;
  config.routing.router_bias = true;
  config.routing.shared_expert_d_ff = 3;
  config.gated = true;
  config.tie_output = false;
  return config;
}

TEST(EvenSlice, GivesLargerPartsFirst) {
  const auto parts = [](int64_t size, int64_t num_parts, int64_t unit) {
    std::vector<Slice> slices;
    for (int64_t part = 0; part < num_parts; ++part) slices.push_back(even_slice(size, num_parts, part, unit));
    return slices;
  };
  EXPECT_THAT(parts(8, 2, 1), ElementsAre(Slice{0, 4}, Slice{4, 8}));
  EXPECT_THAT(parts(5, 2, 1), ElementsAre(Slice{0, 3}, Slice{3, 5}));
  EXPECT_THAT(parts(2, 3, 1), ElementsAre(Slice{0, 1}, Slice{1, 2}, Slice{2, 2}));
  EXPECT_THAT(parts(30 * 64, 4, 64), ElementsAre(Slice{0, 512}, Slice{512, 1024}, Slice{1024, 1472}, Slice{1472, 1920}))
      << "whole heads";
}

TEST(RankPlace, GoesThroughEveryRankOnceWithTensorRanksAsNeighbours) {
  const Layout layout{.data = 2, .expert = 3, .tensor = 4};
  for (int64_t rank = 0; rank < layout.num_ranks(); ++rank) EXPECT_EQ(rank_at(layout, place_of(layout, rank)), rank);
  const auto place = place_of(layout, 17);
  EXPECT_EQ(place.data, 1);
  EXPECT_EQ(place.expert, 1);
  EXPECT_EQ(place.tensor, 1);
}

// What a plan is for: every value has a writer and one only, and equal parts know how many hold them.
class EveryLayout : public testing::TestWithParam<Layout> {};

TEST_P(EveryLayout, CoversEachValueOnceByItsFirstReplica) {
  const auto specs = parameter_specs(awkward_config());
  const auto plan = shard_plan(specs, GetParam());
  ASSERT_EQ(static_cast<int64_t>(plan.ranks.size()), GetParam().num_ranks());
  for (size_t number = 0; number < specs.size(); ++number) {
    const auto& spec = specs[number];
    int64_t written = 0, held = 0;
    std::map<std::vector<int64_t>, std::vector<int64_t>> replicas;  // of each part: numbers in order of rank
    for (const auto& shards : plan.ranks) {
      const auto& shard = shards[number];
      ASSERT_EQ(shard.axes.size(), spec.shape.size());
      std::vector<int64_t> part;
      for (size_t axis = 0; axis < shard.axes.size(); ++axis) {
        const auto& slice = shard.axes[axis];
        EXPECT_TRUE(0 <= slice.begin && slice.begin <= slice.end && slice.end <= spec.shape[axis]) << spec.name;
        part.insert(part.end(), {slice.begin, slice.end});
      }
      held += shard.numel();
      if (shard.replica == 0) written += shard.numel();
      if (shard.numel() > 0) {
        replicas[part].push_back(shard.replica);
        EXPECT_LT(shard.replica, shard.num_replicas) << spec.name;
      }
    }
    EXPECT_EQ(written, spec.numel()) << spec.name;
    EXPECT_GE(held, spec.numel()) << spec.name;
    for (const auto& [part, numbers] : replicas)
      for (size_t n = 0; n < numbers.size(); ++n) EXPECT_EQ(numbers[n], static_cast<int64_t>(n)) << spec.name;
    for (const auto& shards : plan.ranks) {
      const auto& shard = shards[number];
      std::vector<int64_t> part;
      for (const auto& slice : shard.axes) part.insert(part.end(), {slice.begin, slice.end});
      if (shard.numel() == 0) continue;
      EXPECT_EQ(static_cast<int64_t>(replicas.at(part).size()), shard.num_replicas) << spec.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, EveryLayout,
                         testing::Values(Layout{}, Layout{3, 1, 1}, Layout{1, 2, 1}, Layout{1, 1, 2}, Layout{2, 2, 2},
                                         Layout{1, 5, 1}, Layout{1, 8, 1}, Layout{2, 7, 4}, Layout{1, 1, 5}),
                         [](const auto& named) {
                           return std::to_string(named.param.data) + "x" + std::to_string(named.param.expert) + "x" +
                                  std::to_string(named.param.tensor);
                         });

const Shard& find(const std::vector<ParameterSpec>& specs, const std::vector<Shard>& shards, const std::string& name) {
  for (size_t n = 0; n < specs.size(); ++n)
    if (specs[n].name == name) return shards[n];
  throw Error("no parameter " + name);
}

TEST(ShardPlan, CutsExpertsUnevenlyAndLeavesRoutersWhole) {
  const auto specs = parameter_specs(awkward_config());
  const Layout layout{.expert = 2, .tensor = 2};
  const auto last = shards_of(specs, layout, 3);
  EXPECT_THAT(find(specs, last, "encoder.block.1.layer.1.mlp.experts.wi_0.weight").axes,
              ElementsAre(Slice{3, 5}, Slice{3, 6}, Slice{0, 8}));
  EXPECT_THAT(find(specs, last, "encoder.block.1.layer.1.mlp.experts.wo.weight").axes,
              ElementsAre(Slice{3, 5}, Slice{0, 8}, Slice{3, 6}));
  EXPECT_THAT(find(specs, last, "encoder.block.0.layer.0.SelfAttention.experts.q.weight").axes,
              ElementsAre(Slice{3, 5}, Slice{8, 12}, Slice{0, 8}))
      << "two heads on the first rank, one on the second";
  EXPECT_THAT(find(specs, last, "decoder.block.0.layer.1.EncDecAttention.o.weight").axes,
              ElementsAre(Slice{0, 8}, Slice{8, 12}));
  EXPECT_THAT(find(specs, last, "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight").axes,
              ElementsAre(Slice{0, 32}, Slice{2, 3}));
  EXPECT_THAT(find(specs, last, "encoder.block.1.layer.1.mlp.shared_expert.wi_1.weight").axes,
              ElementsAre(Slice{2, 3}, Slice{0, 8}));
  EXPECT_THAT(find(specs, last, "lm_head.weight").axes, ElementsAre(Slice{5, 10}, Slice{0, 8}));
  const auto& router = find(specs, last, "encoder.block.1.layer.1.mlp.router.classifier.weight");
  EXPECT_THAT(router.axes, ElementsAre(Slice{0, 5}, Slice{0, 8}));
  EXPECT_EQ(router.replica, 3);
  EXPECT_EQ(router.num_replicas, 4);
}

TEST(ShardPlan, GivesFewExpertsToSeveralRanksEach) {
  auto config = awkward_config();
  config.routing.num_experts = 3;
  const auto specs = parameter_specs(config);
  const auto plan = shard_plan(specs, {.data = 2, .expert = 4});
  const std::string name = "decoder.block.1.layer.2.mlp.experts.wo.weight";
  std::vector<int64_t> experts, replicas, counts;
  for (const auto& shards : plan.ranks) {
    const auto& shard = find(specs, shards, name);
    EXPECT_EQ(shard.axes[0].size(), 1);
    experts.push_back(shard.axes[0].begin);
    replicas.push_back(shard.replica);
    counts.push_back(shard.num_replicas);
  }
  EXPECT_THAT(experts, ElementsAre(0, 0, 1, 2, 0, 0, 1, 2));
  EXPECT_THAT(replicas, ElementsAre(0, 1, 0, 0, 2, 3, 1, 1));
  EXPECT_THAT(counts, ElementsAre(4, 4, 2, 2, 4, 4, 2, 2));
}

TEST(ShardPlan, RefusesALayoutThatIsNone) {
  EXPECT_THROW(shard_plan({}, {.data = 0}), Error);
  EXPECT_THROW(shard_plan({}, {.expert = -1}), Error);
  EXPECT_THROW(shards_of({}, {}, 1), Error);
}

}  // namespace
}  // namespace switchyard
