// Which rank updates which part of the model, and what the exchange of gradients and new values moves for that.
//
// A unit is a whole matrix of a parameter without experts, or one holder's share of the experts that a group of ranks
// holds. Its owner, one of the ranks that hold it or a part of it, alone has the optimiser's slots for it, and the f32
// matrix where tensor ranks hold parts of it.
#pragma once

#include <vector>

#include "model/parameters.h"
#include "parallel/shard_plan.h"
#include "plan/workload.h"

namespace switchyard {

struct Unit {
  size_t spec = 0;     // its parameter
  Slice experts;       // of its parameter; [0, 1) without an expert axis
  int64_t owner = 0;   // rank
  int64_t places = 1;  // (data, expert) places that hold it: data ranks times replicas of its experts
};

// All units of a model; every value of every parameter that is trained is in one of them.
std::vector<Unit> plan_units(const std::vector<ParameterSpec>& specs, const Layout& layout);

// One rank's state and its messages in a step, bytes.
struct RankState {
  double held = 0;  // f32 values of its parts, those that are trained
  double compute_copy = 0;
  double slots = 0;  // of the optimiser, for the units that it owns
  double whole_masters = 0;
  double gradients_sent = 0, gradients_received = 0;  // to and from other ranks, f32
  double values_sent = 0, values_received = 0;
};

std::vector<RankState> rank_states(const Workload& workload, const Layout& layout);

}  // namespace switchyard
