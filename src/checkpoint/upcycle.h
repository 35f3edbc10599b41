// Dense to sparse: a Switch model that starts out as a trained dense one (sparse upcycling; Komatsuzaki et al.
// 2212.05055).
#pragma once

#include "checkpoint/model_directory.h"

namespace switchyard {

struct UpcycleOptions {
  int64_t num_experts = 8;
  int64_t sparse_step = 2;  // every sparse_step-th feed-forward layer of both stacks
  uint64_t seed = 0;        // of the routers
};

// Copies each chosen feed-forward layer to all of its experts and adds a router close to uniform. A top-1 gate is about
// 1 / num_experts then, and not renormalised, so wo is multiplied by num_experts: without dropped tokens the new model
// computes what the dense one did, to a few percent of a feed-forward layer's output. Weights keep their dtype;
// everything else is shared with `dense`. Throws Error if it is sparse already, or the options do not fit.
LoadedModel upcycle(const LoadedModel& dense, const UpcycleOptions& options);

}  // namespace switchyard
