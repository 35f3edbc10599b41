// Memory that the forward and backward pass of one micro-batch takes on one device, from what each operation of model/
// and ops/ keeps for its backward pass.
#pragma once

#include <vector>

#include "plan/workload.h"

namespace switchyard {

// A stretch of the forward pass. Bytes.
struct PassSegment {
  const char* name = "";
  double saved = 0;           // kept from here until its backward pass
  double late_gradients = 0;  // of weights, in the compute dtype: kept until the end of the backward pass, where casts
                              // and joins of weights are undone
  double forward_work = 0, backward_work = 0;  // beyond these, only while it runs
};

// In the order of the forward pass, for rank 0 of a tensor group, whose parts are the largest.
std::vector<PassSegment> pass_segments(const Workload& workload, const Layout& layout, int64_t micro_batch);

struct PassMemory {
  double activations = 0;  // what is saved, at the end of the forward pass
  double peak = 0;         // of forward and backward pass, with gradients in the compute dtype
};
PassMemory pass_memory(const std::vector<PassSegment>& segments);

}  // namespace switchyard
