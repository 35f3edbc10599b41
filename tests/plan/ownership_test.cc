#include "plan/ownership.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "plan/models.h"

namespace switchyard {
namespace {

double total(const std::vector<RankState>& ranks, double RankState::*field) {
  double sum = 0;
  for (const auto& rank : ranks) sum += rank.*field;
  return sum;
}

class EveryLayout : public testing::TestWithParam<Layout> {};

TEST_P(EveryLayout, OwnsEveryTrainedValueOnce) {
  for (const int64_t num_experts : {5, 2}) {
    auto config = awkward_model();
    config.routing.num_experts = num_experts;
    const auto specs = parameter_specs(config);
    std::map<size_t, int64_t> owned;
    for (const auto& unit : plan_units(specs, GetParam()))
      owned[unit.spec] += specs[unit.spec].is_expert() ? specs[unit.spec].numel() / num_experts * unit.experts.size()
                                                       : specs[unit.spec].numel();
    for (size_t number = 0; number < specs.size(); ++number)
      EXPECT_EQ(owned[number], specs[number].numel()) << specs[number].name;
  }
}

// The messages of rank_states() again, rank by rank and unit by unit, from what each rank's shards are.
TEST_P(EveryLayout, CountsTheMessagesThatShardsAndOwnersImply) {
  Workload workload;
  workload.model = awkward_model();
  const auto layout = GetParam();
  const auto specs = parameter_specs(workload.model);
  const auto plan = shard_plan(specs, layout);
  std::vector<RankState> expected(plan.ranks.size());
  for (const auto& unit : plan_units(specs, layout)) {
    const auto& spec = specs[unit.spec];
    const int64_t owner_tensor = place_of(layout, unit.owner).tensor;
    int64_t holders = 0;
    for (int64_t rank = 0; rank < layout.num_ranks(); ++rank) {
      const auto& shard = plan.ranks[static_cast<size_t>(rank)][unit.spec];
      if (spec.is_expert() && !(shard.axes[0].begin <= unit.experts.begin && unit.experts.end <= shard.axes[0].end))
        continue;
      ++holders;
      const int64_t numel =
          spec.is_expert() ? shard.numel() / shard.axes[0].size() * unit.experts.size() : shard.numel();
      const double bytes = 4.0 * static_cast<double>(numel);
      auto& holder = expected[static_cast<size_t>(rank)];
      auto& owner = expected[static_cast<size_t>(unit.owner)];
      holder.held += bytes;
      if (rank == unit.owner) continue;
      owner.values_sent += bytes;
      holder.values_received += bytes;
      if (spec.tensor_axis < 0 && place_of(layout, rank).tensor != owner_tensor) continue;
      holder.gradients_sent += bytes;
      owner.gradients_received += bytes;
    }
    EXPECT_EQ(holders, unit.places * layout.tensor) << spec.name;
  }
  const auto ranks = rank_states(workload, layout);
  ASSERT_EQ(ranks.size(), expected.size());
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    EXPECT_EQ(ranks[rank].held, expected[rank].held) << "rank " << rank;
    EXPECT_EQ(ranks[rank].gradients_sent, expected[rank].gradients_sent) << "rank " << rank;
    EXPECT_EQ(ranks[rank].gradients_received, expected[rank].gradients_received) << "rank " << rank;
    EXPECT_EQ(ranks[rank].values_sent, expected[rank].values_sent) << "rank " << rank;
    EXPECT_EQ(ranks[rank].values_received, expected[rank].values_received) << "rank " << rank;
  }
  EXPECT_EQ(total(ranks, &RankState::values_sent), total(ranks, &RankState::values_received));
}

INSTANTIATE_TEST_SUITE_P(Layouts, EveryLayout,
                         testing::Values(Layout{}, Layout{3, 1, 1}, Layout{1, 2, 1}, Layout{1, 1, 2}, Layout{2, 2, 2},
                                         Layout{1, 5, 1}, Layout{1, 8, 1}, Layout{2, 7, 3}, Layout{1, 1, 5}),
                         [](const auto& named) {
                           return std::to_string(named.param.data) + "x" + std::to_string(named.param.expert) + "x" +
                                  std::to_string(named.param.tensor);
                         });

TEST(RankStates, OneRankSendsNothingAndHoldsTheWholeModel) {
  Workload workload;
  workload.model = awkward_model();
  double numel = 0;
  for (const auto& spec : parameter_specs(workload.model)) numel += static_cast<double>(spec.numel());
  const auto ranks = rank_states(workload, {});
  EXPECT_EQ(ranks[0].held, 4.0 * numel);
  EXPECT_EQ(ranks[0].gradients_sent, 0);
  EXPECT_EQ(ranks[0].values_sent, 0);
  EXPECT_EQ(ranks[0].whole_masters, 0);
}

// Slots: rows plus columns of a factored matrix, every value of others; two moments of AdamW.
TEST(RankStates, CountsTheOptimisersSlots) {
  auto workload = small_workload(/*sparse=*/false);
  workload.model.num_decoder_layers = 1;
  double all = 0, vectors = 0, factored = 0;
  for (const auto& spec : parameter_specs(workload.model)) {
    all += static_cast<double>(spec.numel());
    if (spec.shape.size() == 1)
      vectors += static_cast<double>(spec.numel());
    else
      factored += static_cast<double>(spec.shape[0] + spec.shape[1]);
  }
  workload.min_dim_size_to_factor = 1;
  EXPECT_EQ(rank_states(workload, {})[0].slots, 4 * (factored + vectors));
  workload.min_dim_size_to_factor = 1000;
  EXPECT_EQ(rank_states(workload, {})[0].slots, 4 * all);
  workload.is_adamw = true;
  EXPECT_EQ(rank_states(workload, {})[0].slots, 8 * all);
  EXPECT_EQ(total(rank_states(workload, {.data = 4}), &RankState::slots), 8 * all) << "shared over data ranks";
}

TEST(RankStates, KeepsWholeMastersWhereTensorRanksCut) {
  const auto workload = small_workload(/*sparse=*/false);
  double cut = 0;
  for (const auto& spec : parameter_specs(workload.model))
    if (spec.tensor_axis >= 0) cut += static_cast<double>(spec.numel());
  EXPECT_EQ(total(rank_states(workload, {.data = 2}), &RankState::whole_masters), 0);
  EXPECT_EQ(total(rank_states(workload, {.data = 2, .tensor = 2}), &RankState::whole_masters), 4 * cut);
}

// bf16: q, k, v, o, networks and the output; fp32: only what is joined, q, k and v, and the cross keys and values.
TEST(RankStates, CopiesWhatComputeNeeds) {
  auto workload = small_workload(/*sparse=*/false);
  const double d = 16, inner = 32, attention = 4 * d * inner, networks = 2 * d * 32, output = 128 * d;
  EXPECT_EQ(rank_states(workload, {})[0].compute_copy, 2 * (3 * attention + 2 * networks + output));
  workload.is_bf16 = false;
  EXPECT_EQ(rank_states(workload, {})[0].compute_copy, 4 * (2 * 3 + 2) * d * inner);
}

TEST(PlanUnits, BalancesOwnersOfEqualMatrices) {
  Workload workload;
  workload.model = preset("switch-base-8");
  const auto specs = parameter_specs(workload.model);
  std::vector<int64_t> owned(4, 0);
  for (const auto& unit : plan_units(specs, {.data = 4}))
    owned[static_cast<size_t>(unit.owner)] +=
        specs[unit.spec].is_expert() ? specs[unit.spec].numel() / 8 * unit.experts.size() : specs[unit.spec].numel();
  EXPECT_LT(*std::max_element(owned.begin(), owned.end()),
            1.05 * static_cast<double>(*std::min_element(owned.begin(), owned.end())));
}

}  // namespace
}  // namespace switchyard
