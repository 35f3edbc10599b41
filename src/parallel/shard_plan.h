// Which part of each parameter each rank holds: placement, the writers of checkpoints, the optimiser's shards and the
// planner read this one plan. Plain numbers, known without a process group; nothing is allocated or sent here.
#pragma once

#include <cstdint>
#include <vector>

#include "base/slice.h"
#include "model/parameters.h"

namespace switchyard {

// How many ways a model is cut. Ranks of one tensor group are neighbours, then those of one expert group. What has no
// expert axis is equal on all ranks of a data and an expert group: both see different examples.
struct Layout {
  int64_t data = 1, expert = 1, tensor = 1;
  int64_t num_ranks() const { return data * expert * tensor; }
};

struct RankPlace {
  int64_t data = 0, expert = 0, tensor = 0;
};
RankPlace place_of(const Layout& layout, int64_t rank);
int64_t rank_at(const Layout& layout, const RankPlace& place);

// Part `part` of `num_parts` of an axis: sizes differ by one unit at most, larger parts first, some empty if there are
// more parts than units. The last part takes what `size` has beyond whole units.
Slice even_slice(int64_t size, int64_t num_parts, int64_t part, int64_t unit = 1);

// The experts of a layer that one rank of an expert group holds, and the ranks of the group that hold the same ones:
// more than one where there are fewer experts than ranks.
struct ExpertShare {
  Slice experts, ranks;
};
ExpertShare expert_share(int64_t num_experts, int64_t num_ranks, int64_t rank);

// One rank's part of one parameter.
struct Shard {
  std::vector<Slice> axes;  // one an axis of the spec's shape
  // Ranks that hold this very part, in order of rank: number `replica` of `num_replicas` is this one. Number 0 writes
  // it; gradients are summed over all; an optimiser that shares its state gives each even_slice() of it.
  int64_t replica = 0, num_replicas = 1;

  std::vector<int64_t> shape() const;
  int64_t numel() const;
};

struct ShardPlan {
  Layout layout;
  std::vector<std::vector<Shard>> ranks;  // [rank][spec]
};

// Cuts experts over expert ranks and tensor axes over tensor ranks. Where there are fewer experts than expert ranks,
// neighbouring ranks hold the same expert. Throws Error if the layout is not positive.
ShardPlan shard_plan(const std::vector<ParameterSpec>& specs, const Layout& layout);

// One rank's row of the plan, for a layout of many ranks.
std::vector<Shard> shards_of(const std::vector<ParameterSpec>& specs, const Layout& layout, int64_t rank);

}  // namespace switchyard
