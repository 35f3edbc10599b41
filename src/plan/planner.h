// All layouts of a model over a cluster's devices: what each needs and takes, which are possible, the fastest first.
#pragma once

#include <string>
#include <vector>

#include "plan/cluster.h"
#include "plan/memory.h"
#include "plan/step_time.h"
#include "plan/traffic.h"
#include "plan/workload.h"

namespace switchyard {

struct PlannedLayout {
  Layout layout;
  bool fits = false;
  std::string reason;       // why it does not; "" if it does
  int64_t micro_batch = 0;  // sequences a forward pass of one device
  MemoryUse memory;
  std::vector<Collective> traffic;
  StepTime time;
};

// One layout with the largest micro-batch whose memory fits, or the smallest if none does.
PlannedLayout plan_layout(const Workload& workload, const Cluster& cluster, const Layout& layout);

// Every data x expert x tensor of cluster.num_devices: those that fit by predicted step time, then the others by
// memory. Throws Error as validate() of the arguments does.
std::vector<PlannedLayout> plan_layouts(const Workload& workload, const Cluster& cluster);

}  // namespace switchyard
