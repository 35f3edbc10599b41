#include "parallel/shard_plan.h"

#include <algorithm>

#include "base/error.h"

namespace switchyard {
namespace {

void check(const Layout& layout) {
  constexpr int64_t kMostRanks = int64_t{1} << 20;
  for (const int64_t ways : {layout.data, layout.expert, layout.tensor})
    SY_CHECK(ways >= 1 && ways <= kMostRanks, "layout of data ", layout.data, " x expert ", layout.expert, " x tensor ",
             layout.tensor, ": expected 1 to ", kMostRanks, " of each");
  SY_CHECK(layout.num_ranks() <= kMostRanks, "layout of ", layout.num_ranks(), " ranks: expected at most ", kMostRanks);
}

Shard shard_of(const ParameterSpec& spec, const Layout& layout, const RankPlace& place) {
  Shard shard;
  for (const int64_t size : spec.shape) shard.axes.push_back({0, size});
  Slice same_experts{0, layout.expert};
  if (spec.is_expert()) {
    const auto axis = static_cast<size_t>(spec.expert_axis);
    const auto share = expert_share(spec.shape[axis], layout.expert, place.expert);
    shard.axes[axis] = share.experts;
    same_experts = share.ranks;
  }
  // Ranks of a tensor group that hold the same part: all of it, or one.
  const bool is_cut = spec.tensor_axis >= 0;
  if (is_cut) {
    const auto axis = static_cast<size_t>(spec.tensor_axis);
    shard.axes[axis] = even_slice(spec.shape[axis], layout.tensor, place.tensor, spec.tensor_unit);
  }
  const int64_t same_tensor = is_cut ? 1 : layout.tensor;
  shard.num_replicas = layout.data * same_experts.size() * same_tensor;
  shard.replica = (place.data * same_experts.size() + place.expert - same_experts.begin) * same_tensor +
                  (is_cut ? 0 : place.tensor);
  return shard;
}

}  // namespace

RankPlace place_of(const Layout& layout, int64_t rank) {
  return {rank / (layout.expert * layout.tensor), rank / layout.tensor % layout.expert, rank % layout.tensor};
}

int64_t rank_at(const Layout& layout, const RankPlace& place) {
  return (place.data * layout.expert + place.expert) * layout.tensor + place.tensor;
}

Slice even_slice(int64_t size, int64_t num_parts, int64_t part, int64_t unit) {
  const int64_t units = size / unit, each = units / num_parts, larger = units % num_parts;
  const auto start = [&](int64_t n) { return n == num_parts ? size : (n * each + std::min(n, larger)) * unit; };
  return {start(part), start(part + 1)};
}

ExpertShare expert_share(int64_t num_experts, int64_t num_ranks, int64_t rank) {
  if (num_experts >= num_ranks) return {even_slice(num_experts, num_ranks, rank), {rank, rank + 1}};
  for (int64_t expert = 0;; ++expert)
    if (const auto ranks = even_slice(num_ranks, num_experts, expert); rank < ranks.end)
      return {{expert, expert + 1}, ranks};
}

std::vector<int64_t> Shard::shape() const {
  std::vector<int64_t> sizes;
  for (const auto& axis : axes) sizes.push_back(axis.size());
  return sizes;
}

int64_t Shard::numel() const {
  int64_t product = 1;
  for (const auto& axis : axes) product *= axis.size();
  return product;
}

std::vector<Shard> shards_of(const std::vector<ParameterSpec>& specs, const Layout& layout, int64_t rank) {
  check(layout);
  SY_CHECK(rank >= 0 && rank < layout.num_ranks(), "rank ", rank, " of a layout of ", layout.num_ranks());
  std::vector<Shard> shards;
  for (const auto& spec : specs) shards.push_back(shard_of(spec, layout, place_of(layout, rank)));
  return shards;
}

ShardPlan shard_plan(const std::vector<ParameterSpec>& specs, const Layout& layout) {
  check(layout);
  ShardPlan plan{layout, {}};
  for (int64_t rank = 0; rank < layout.num_ranks(); ++rank) plan.ranks.push_back(shards_of(specs, layout, rank));
  return plan;
}

}  // namespace switchyard
