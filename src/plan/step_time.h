// How long one training step takes by a roofline: products, memory, wire.
#pragma once

#include <vector>

#include "base/enum_words.h"
#include "plan/cluster.h"
#include "plan/traffic.h"

namespace switchyard {

enum class Bound { kCompute, kWire, kMemory };
template <>
inline constexpr auto enum_words<Bound> = std::to_array<const char*>({"compute", "wire", "memory"});

// Seconds of the busiest device. Nothing overlaps but products and the memory that they read.
struct StepTime {
  double compute = 0;  // products of forward and backward pass: three times the forward pass
  double memory = 0;   // weights and activations that these read and write
  double update = 0;   // memory that casts, sums of gradients and the optimiser read and write
  double wire = 0;     // collectives, one after the other
  double total() const { return (compute > memory ? compute : memory) + update + wire; }
  // What takes most: products, collectives, or memory (of passes that wait for it, and of the update).
  Bound bound() const;
};

StepTime step_time(const Cluster& cluster, const Workload& workload, const Layout& layout,
                   const std::vector<RankState>& ranks, const std::vector<Collective>& traffic, int64_t micro_batch);

// Seconds that one collective takes in a step, all its calls.
double seconds_of(const Cluster& cluster, const Collective& collective);

}  // namespace switchyard
