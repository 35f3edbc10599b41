#include "plan/traffic.h"

#include <gtest/gtest.h>

#include "plan/models.h"

namespace switchyard {
namespace {

std::vector<Collective> traffic_of(const Workload& workload, const Layout& layout, int64_t micro_batch = 1) {
  return step_traffic(workload, layout, rank_states(workload, layout), micro_batch);
}

const Collective& find(const std::vector<Collective>& traffic, const std::string& name) {
  for (const auto& collective : traffic)
    if (collective.name == name) return collective;
  throw std::runtime_error("no collective " + name);
}

TEST(Traffic, IsNoneOnOneDevice) {
  EXPECT_TRUE(traffic_of(small_workload(true), {}).empty());
  EXPECT_TRUE(traffic_of(small_workload(false), {}).empty());
}

// 8 sequences on 4 ranks: 2 x (64 + 32) tokens each, one row a token, 16 values of 2 bytes, three quarters leave.
TEST(Traffic, OfExpertsIsEachRowThereAndBackInBothPasses) {
  const auto traffic = traffic_of(small_workload(true), {.expert = 4});
  const double one_way = 192 * 16 * 2 * 0.75;
  EXPECT_EQ(find(traffic, "rows to experts and their gradients back").bytes, 2 * one_way);
  EXPECT_EQ(find(traffic, "rows to tokens and their gradients back").bytes, 2 * one_way);
  // Two layers, two micro-batches of one sequence: 4 experts' counts of 8 bytes.
  EXPECT_EQ(find(traffic, "rows' counts").bytes, 2 * 2 * 4 * 8 * 0.75);
  EXPECT_EQ(find(traffic, "rows' counts").calls, 4);
  EXPECT_EQ(find(traffic, "rows to experts and their gradients back").calls, 8);
  // Results: 2 + 5 numbers and two layers' 9 sums, 4 choices, 4 probabilities and balance loss, 8 bytes, a ring of 4.
  EXPECT_EQ(bytes_of(traffic, CollectiveKind::kAllReduce), (7 + 2 * 18) * 8 * 2 * 0.75);
}

TEST(Traffic, OfExpertsGrowsWithChoicesNumbersAndDtypeAndShrinksWithDrops) {
  auto workload = small_workload(true);
  const auto rows = [&] {
    return find(traffic_of(workload, {.expert = 2}), "rows to experts and their gradients back").bytes;
  };
  const double before = rows();
  workload.is_bf16 = false;
  EXPECT_EQ(rows(), 2 * before);
  workload.dropped_fraction = 0.25;
  EXPECT_EQ(rows(), 1.5 * before);
  workload.dropped_fraction = 0.0;
  workload.model.routing.num_selected_experts = 2;
  workload.model.routing.train_capacity_factor = 2.0;
  EXPECT_EQ(rows(), 4 * before);
  workload.model.routing.train_capacity_factor = 0.5;  // slots for half of the tokens' first choices
  EXPECT_EQ(rows(), before);
  workload.model.expert_dropout_rate = 0.1;
  EXPECT_EQ(find(traffic_of(workload, {.expert = 2}), "rows' numbers").bytes, 8 * (4 * 96 / 2) / 2);
}

// Two tensor ranks on all 8 sequences: a ring of two sends every reduced byte once, in f32.
TEST(Traffic, OfTensorRanksIsTwoSumsASublayer) {
  const auto traffic = traffic_of(small_workload(false), {.tensor = 2}, 8);
  const double inputs = 8 * 64, targets = 8 * 32, d = 16;
  EXPECT_EQ(find(traffic, "sums behind self attention").bytes, 4 * 2 * (inputs + targets) * d);
  EXPECT_EQ(find(traffic, "sums behind feed-forward").bytes, 4 * 2 * (inputs + targets) * d);
  EXPECT_EQ(find(traffic, "sums behind cross attention").bytes, 4 * (2 * targets + inputs) * d);
  EXPECT_EQ(find(traffic, "looked-up embeddings").bytes, 4 * (inputs + targets) * d);
  EXPECT_EQ(find(traffic, "states before the vocabulary").bytes, 4 * targets * d);
}

TEST(Traffic, OfTheUpdateIsTheModelThereAndBack) {
  const auto workload = small_workload(false);
  double numel = 0;
  for (const auto& spec : parameter_specs(workload.model)) numel += static_cast<double>(spec.numel());
  const auto traffic = traffic_of(workload, {.data = 4});
  // All of it from each of the three that do not own it, over four devices; back in bf16 but for norms, table and bias.
  double wide = 0;
  for (const auto& spec : parameter_specs(workload.model))
    if (spec.is_wide || spec.role == Role::kEmbedding) wide += static_cast<double>(spec.numel());
  EXPECT_EQ(find(traffic, "gradients to owners").bytes, 4 * numel * 3 / 4);
  EXPECT_EQ(find(traffic, "new values to holders").bytes, (2 * numel + 2 * wide) * 3 / 4);
}

TEST(Network, GoesOverTheLinksThatAGroupSpans) {
  Cluster cluster = known_cluster("h100", 16);
  cluster.intra_bandwidth = 100;
  cluster.inter_bandwidth = 10;
  cluster.intra_latency = 0.5;
  cluster.inter_latency = 2;
  EXPECT_EQ(members_per_node(cluster, {16, 1}), 8);
  EXPECT_EQ(members_per_node(cluster, {4, 2}), 4);
  EXPECT_EQ(members_per_node(cluster, {8, 4}), 2);
  EXPECT_EQ(members_per_node(cluster, {2, 8}), 1);
  EXPECT_DOUBLE_EQ(all_to_all_seconds(cluster, {8, 1}, 700), 3 * 0.5 + 7);
  EXPECT_DOUBLE_EQ(all_to_all_seconds(cluster, {16, 1}, 150), 4 * 2 + 0.7 + 8) << "8 of 15 parts leave the node";
  EXPECT_DOUBLE_EQ(all_reduce_seconds(cluster, {4, 1}, 100), 2 * 0.5 + 1.5);
  EXPECT_DOUBLE_EQ(all_reduce_seconds(cluster, {16, 1}, 800), 4 * 2 + 2 * 7.0 / 8 * 8 + 10)
      << "100 bytes between nodes";
  EXPECT_EQ(all_to_all_seconds(cluster, {1, 1}, 700), 0);
}

}  // namespace
}  // namespace switchyard
