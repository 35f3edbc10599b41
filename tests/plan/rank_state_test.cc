#include "plan/rank_state.h"

#include <gtest/gtest.h>

#include <map>

#include "plan/models.h"
#include "plan/ownership.h"

namespace switchyard {
namespace {

double total(const std::vector<RankState>& ranks, double RankState::*field) {
  double sum = 0;
  for (const auto& rank : ranks) sum += rank.*field;
  return sum;
}

// The messages again, message by message.
class Tally {
 public:
  explicit Tally(const Layout& layout) : ranks(static_cast<size_t>(layout.num_ranks())) {}
  void gradient(int64_t from, int64_t to, double bytes) {
    if (from == to) return;
    at(from).gradients_sent += bytes;
    at(to).gradients_received += bytes;
  }
  void value(int64_t from, int64_t to, double bytes) {
    if (from == to) return;
    at(from).values_sent += bytes;
    at(to).values_received += bytes;
  }
  RankState& at(int64_t rank) { return ranks[static_cast<size_t>(rank)]; }
  std::vector<RankState> ranks;
};

struct Holder {
  int64_t rank;
  double bytes;
};

void send(const std::vector<Holder>& holders, int64_t owner, bool in_two_hops, bool is_gradient, Tally& tally) {
  for (const auto& holder : holders) {
    const double run = holder.bytes / static_cast<double>(holders.size());
    const auto go = [&](int64_t from, int64_t to, double bytes) {
      is_gradient ? tally.gradient(from, to, bytes) : tally.value(to, from, bytes);
    };
    go(holder.rank, owner, in_two_hops ? run : holder.bytes);
    if (!in_two_hops) continue;
    for (const auto& other : holders) go(holder.rank, other.rank, run);  // the other's run of mine
  }
}

class MessagesOf : public testing::TestWithParam<Layout> {};

TEST_P(MessagesOf, FollowFromShardsAndOwners) {
  Workload workload;
  workload.model = awkward_model();
  const auto layout = GetParam();
  const auto specs = parameter_specs(workload.model);
  const auto plan = shard_plan(specs, layout);
  Tally expected(layout);
  for (const auto& unit : plan_units(specs, layout)) {
    const auto& spec = specs[unit.spec];
    const bool cut = spec.tensor_axis >= 0;
    std::map<int64_t, std::vector<Holder>> same_part;  // by tensor rank, or all under 0 where all hold the same
    std::map<int64_t, std::vector<Holder>> speakers;
    int64_t places = 0;
    for (int64_t rank = 0; rank < layout.num_ranks(); ++rank) {
      const auto& shard = plan.ranks[static_cast<size_t>(rank)][unit.spec];
      if (spec.is_expert() && !(shard.axes[0].begin <= unit.experts.begin && unit.experts.end <= shard.axes[0].end))
        continue;
      const int64_t numel =
          spec.is_expert() ? shard.numel() / shard.axes[0].size() * unit.experts.size() : shard.numel();
      const Holder holder{rank, 4.0 * static_cast<double>(numel)};
      const int64_t tensor = place_of(layout, rank).tensor;
      expected.at(rank).held += holder.bytes;
      places += tensor == 0 ? 1 : 0;
      same_part[cut ? tensor : 0].push_back(holder);
      if (cut || tensor == place_of(layout, unit.owner).tensor) speakers[cut ? tensor : 0].push_back(holder);
    }
    EXPECT_EQ(places, layout.data * unit.places.size()) << spec.name;
    const bool in_two_hops = places > kMostDirectPlaces;
    for (const auto& [part, holders] : speakers) send(holders, unit.owner, in_two_hops, true, expected);
    const bool is_narrow = !spec.is_wide && spec.role != Role::kEmbedding;  // goes in bf16
    for (auto& [part, holders] : same_part) {
      for (auto& holder : holders) holder.bytes *= is_narrow ? 0.5 : 1.0;
      send(holders, unit.owner, in_two_hops, false, expected);
    }
  }
  const auto ranks = rank_states(workload, layout);
  ASSERT_EQ(ranks.size(), expected.ranks.size());
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const auto& wanted = expected.ranks[rank];
    EXPECT_EQ(ranks[rank].held, wanted.held) << "rank " << rank;
    EXPECT_NEAR(ranks[rank].gradients_sent, wanted.gradients_sent, 0.01) << "rank " << rank;
    EXPECT_NEAR(ranks[rank].gradients_received, wanted.gradients_received, 0.01) << "rank " << rank;
    EXPECT_NEAR(ranks[rank].values_sent, wanted.values_sent, 0.01) << "rank " << rank;
    EXPECT_NEAR(ranks[rank].values_received, wanted.values_received, 0.01) << "rank " << rank;
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, MessagesOf,
                         testing::Values(Layout{}, Layout{3, 1, 1}, Layout{1, 2, 1}, Layout{1, 1, 2}, Layout{2, 2, 2},
                                         Layout{1, 5, 1}, Layout{1, 8, 1}, Layout{2, 7, 3}, Layout{1, 1, 5},
                                         Layout{12, 1, 1}, Layout{3, 4, 2}, Layout{2, 10, 2}),
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
  double all = 0, vectors = 0, factored = 0, momentum = 0;
  for (const auto& spec : parameter_specs(workload.model)) {
    all += static_cast<double>(spec.numel());
    if (spec.role == Role::kAttention || spec.role == Role::kFeedForward) momentum += static_cast<double>(spec.numel());
    if (spec.shape.size() == 1)
      vectors += static_cast<double>(spec.numel());
    else
      factored += static_cast<double>(spec.shape[0] + spec.shape[1]);
  }
  workload.min_dim_size_to_factor = 1;
  EXPECT_EQ(rank_states(workload, {})[0].slots, 4 * (factored + vectors));
  workload.min_dim_size_to_factor = 1000;
  EXPECT_EQ(rank_states(workload, {})[0].slots, 4 * all);
  workload.optimizer = "muon";  // one momentum a value of a layer's matrix, of the rest what Adafactor keeps
  EXPECT_EQ(rank_states(workload, {})[0].slots, 4 * all);
  workload.min_dim_size_to_factor = 1;
  EXPECT_LT(rank_states(workload, {})[0].slots, 4 * all);
  EXPECT_GT(rank_states(workload, {})[0].slots, 4 * momentum);
  workload.optimizer = "adamw";
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

// bf16: q, k, v, o, networks and the output; f32: only what is joined, q, k and v, and the cross keys and values.
TEST(RankStates, CopiesWhatComputeNeeds) {
  auto workload = small_workload(/*sparse=*/false);
  const double d = 16, inner = 32, attention = 4 * d * inner, networks = 2 * d * 32, output = 128 * d;
  EXPECT_EQ(rank_states(workload, {})[0].compute_copy, 2 * (3 * attention + 2 * networks + output));
  workload.is_bf16 = false;
  EXPECT_EQ(rank_states(workload, {})[0].compute_copy, 4 * (2 * 3 + 2) * d * inner);
}

// However many places, nobody receives much more than the model twice over.
TEST(RankStates, SpreadTheSumsOfManyPlaces) {
  auto workload = small_workload(/*sparse=*/false);
  const auto ranks = rank_states(workload, {.data = 256});
  const double model = ranks[0].held;
  for (const auto& rank : ranks) {
    EXPECT_LT(rank.gradients_received, 2.1 * model);
    EXPECT_LT(rank.values_sent, 2.1 * model);
  }
  EXPECT_NEAR(total(ranks, &RankState::gradients_sent), total(ranks, &RankState::gradients_received), 1);
}

}  // namespace
}  // namespace switchyard
