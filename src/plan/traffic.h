// What one training step sends: every collective, its group, how often and how many bytes.
#pragma once

#include <string>
#include <vector>

#include "plan/network_model.h"
#include "plan/rank_state.h"
#include "plan/workload.h"

namespace switchyard {

struct Collective {
  std::string name;   // "rows to experts", ...
  std::string group;  // "expert", "tensor" or "all"
  CollectiveKind kind = CollectiveKind::kAllToAll;
  DeviceGroup devices;
  int64_t calls = 0;   // a step
  int64_t waits = 0;   // those of them that start one after the other
  double bytes = 0;    // that one device sends in a step, the mean over devices; what stays on it is not counted
  double first = 0;    // the same of device 0
  double busiest = 0;  // bytes that the busiest device sends or receives in a step
};

// All collectives of a step; none on one device. ranks: of the same workload and layout.
std::vector<Collective> step_traffic(const Workload& workload, const Layout& layout,
                                     const std::vector<RankState>& ranks, int64_t micro_batch);

// The bytes of a kind.
double bytes_of(const std::vector<Collective>& traffic, CollectiveKind kind);

}  // namespace switchyard
