// Which rank updates which part of the model.
//
// A unit is a whole matrix of a parameter without experts, or one holder's share of the experts that a group of ranks
// holds. Its owner, one of the ranks that hold it or a part of it, alone has the optimiser's slots for it, and the f32
// matrix where tensor ranks hold parts of it.
#pragma once

#include <vector>

#include "model/parameters.h"
#include "parallel/shard_plan.h"

namespace switchyard {

struct Unit {
  size_t spec = 0;    // its parameter
  Slice experts;      // of its parameter; [0, 1) without an expert axis
  Slice places;       // of the expert axis whose ranks hold it, each on all data ranks
  int64_t owner = 0;  // rank
};

// All units of a model, by parameter, and their owners: those of update_plan() (parallel/update_plan.h), found in a
// time that suits thousands of ranks. Owners are chosen from the largest unit to the smallest, each time the holder
// with the fewest values so far.
std::vector<Unit> plan_units(const std::vector<ParameterSpec>& specs, const Layout& layout);

}  // namespace switchyard
