// Memory of the fullest device, by what it is for.
#pragma once

#include "plan/cluster.h"
#include "plan/rank_state.h"
#include "plan/workload.h"

namespace switchyard {

// Bytes. What the device holds at its fullest moment is their sum, less `overlap`.
struct MemoryUse {
  double weights = 0;  // f32 parts, and their copies
  double copies = 0;   // of these: in the compute dtype, or joined
  // At the end of a step's passes. In the compute dtype after the only pass of one process, else f32.
  double gradients = 0;
  double optimizer = 0;    // slots and whole masters of the units owned
  double activations = 0;  // kept by the forward pass of one micro-batch
  // What the busiest moment takes beyond these. It is during a pass (working memory of an operation), or at its end,
  // when activations are gone (gradients or new values on their way).
  double buffers = 0;
  double overlap = 0;  // gradients that come while activations go
  double total() const { return weights + gradients + optimizer + activations + buffers - overlap; }
};

// Of the rank whose total is the largest.
MemoryUse memory_use(const Workload& workload, const Layout& layout, const std::vector<RankState>& ranks,
                     int64_t micro_batch);

}  // namespace switchyard
