// What each rank holds between passes, and what it sends and receives so that owners update it.
#pragma once

#include <vector>

#include "parallel/shard_plan.h"
#include "plan/workload.h"

namespace switchyard {

// Bytes. Messages go to and come from other ranks, once a step: gradients in f32, values as passes read them.
struct RankState {
  double held = 0;           // values of its parts, those that are trained
  double compute_copy = 0;   // of them in the compute dtype, or joined
  double slots = 0;          // of the optimiser, for the units that it owns
  double whole_masters = 0;  // of the owned units that tensor ranks cut
  double gradients_sent = 0, gradients_received = 0;
  double values_sent = 0, values_received = 0;
  int64_t num_buckets = 1;  // in which gradients and values travel
};

// Gradients of more places than this are summed in two hops: each place sums an equal run of every matrix and sends it
// to the owner, and values come back the same way. With fewer, every place sends the owner all of its part. The
// training of this program has the one hop alone, whose owners would receive every matrix from every place.
inline constexpr int64_t kMostDirectPlaces = 8;

std::vector<RankState> rank_states(const Workload& workload, const Layout& layout);

}  // namespace switchyard
