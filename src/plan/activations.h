// Memory that the forward and backward pass of one micro-batch takes on one device, from what each operation of model/
// and ops/ keeps for its backward pass.
#pragma once

#include <vector>

#include "plan/workload.h"

namespace switchyard {

// A stretch of the forward pass. Bytes.
struct PassSegment {
  const char* name = "";
  double saved = 0;                            // kept from here until its backward pass
  double gradients = 0;                        // of matrices, as products leave them: in the compute dtype
  double table_gradient = 0;                   // of a look-up: a whole table in f32
  double forward_work = 0, backward_work = 0;  // beyond these, only while it runs
};

// In the order of the forward pass, for rank 0 of a tensor group, whose parts are the largest.
std::vector<PassSegment> pass_segments(const Workload& workload, const Layout& layout, int64_t micro_batch);

// What is saved at the end of the forward pass.
double activations(const std::vector<PassSegment>& segments);

// What becomes of a gradient in a backward pass.
enum class GradientFate {
  kKept,        // as it was made: the only pass of a step of one process
  kAdded,       // to sums of earlier passes that are there all the time, at once
  kAddedLater,  // at the end of the pass: bf16 in one process
  kWidened,     // to a new f32 sum: the only pass of a step of several ranks
};

struct PassMemory {
  double gradients = 0;  // what the backward pass leaves beyond the sums that were there
  double peak = 0;       // of both passes, with those
};
PassMemory pass_memory(const std::vector<PassSegment>& segments, GradientFate fate, bool is_bf16);

}  // namespace switchyard
