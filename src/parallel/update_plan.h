// Who updates what: each matrix, or run of experts of one, has one owner among the ranks that hold it. The owner alone
// has its optimiser slots and writes it to checkpoints (ZeRO-1 by whole matrices: Adafactor's factors and RMS need all
// of a matrix, so a matrix that tensor parallelism cuts is put together again at its owner).
//
// Plain numbers, as shard_plan.h: the planner counts memory and traffic by them.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/shard_plan.h"

namespace switchyard {

struct UpdateUnit {
  size_t parameter = 0;  // index into the specs
  Slice experts;         // of its expert axis; {0, 1} for a parameter without one, which is whole
  int64_t owner = 0;     // rank
};

struct UpdatePlan {
  ShardPlan shards;
  std::vector<UpdateUnit> units;  // by parameter, then by experts

  // Whether rank holds a part of the unit.
  bool is_held(const UpdateUnit& unit, int64_t rank) const;
  // Whether rank's gradient is part of the unit's: of ranks of a tensor group that hold the same part, which have equal
  // gradients, one alone counts.
  bool contributes(const UpdateUnit& unit, int64_t rank) const;
  // Elements of the unit that rank holds.
  int64_t held_numel(const UpdateUnit& unit, int64_t rank) const;

  std::vector<ParameterSpec> specs;
};

// Owners are chosen from the largest unit to the smallest, each time the holder with the least so far. A run of experts
// is cut into as many units as ranks hold it. Buffers have no units. Throws Error as shard_plan() does.
UpdatePlan update_plan(const std::vector<ParameterSpec>& specs, const Layout& layout);

// Shape of the unit's values: the parameter's, with its experts alone.
std::vector<int64_t> unit_shape(const ParameterSpec& spec, const UpdateUnit& unit);

}  // namespace switchyard
