// Memory of the fullest device, by what it is for.
#pragma once

#include "plan/cluster.h"
#include "plan/rank_state.h"
#include "plan/workload.h"

namespace switchyard {

// Bytes. The sum is what the device holds at its fullest moment; with one micro-batch a step it is above that by the
// smaller of gradients and activations, as gradients come while activations go.
struct MemoryUse {
  double weights = 0;      // f32 parts, and their copy in the compute dtype
  double gradients = 0;    // f32, of all parts held
  double optimizer = 0;    // slots and whole masters of the units owned
  double activations = 0;  // kept by the forward pass of one micro-batch
  // What the busiest moment takes beyond these. It is during a pass (working memory of an operation, gradients in the
  // compute dtype), or at its end, when activations are gone (gradients or new values on their way).
  double buffers = 0;
  double total() const { return weights + gradients + optimizer + activations + buffers; }
};

// Of the rank whose total is the largest.
MemoryUse memory_use(const Workload& workload, const Layout& layout, const std::vector<RankState>& ranks,
                     int64_t micro_batch);

}  // namespace switchyard
