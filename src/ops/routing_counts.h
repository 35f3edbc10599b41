// What a routing did. Kept as sums, which add up over the parts of a step, over steps and over ranks; shares and means
// are made of them where they are shown.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace switchyard::ops {

// What a routing did, as sums over real tokens: the parts of a step add up to the whole, whatever it is cut into.
struct RoutingCounts {
  enum Sum {
    kTokens,
    kAsked,       // choices that ask for a slot, before dropping; expert choice and rerouting: tokens
    kGiven,       // those of them that got one
    kLeftBehind,  // tokens without any expert
    kRows,        // (token, expert) pairs: slots in use
    kSlots,
    kEntropy,     // of the router's distribution, nats
    kConfidence,  // its largest probability
    kSquaredLogPartition,
    kNumSums
  };
  at::Tensor sums;  // [kNumSums + 2 num_experts] f64 on the router's device: those above, then each expert's choices
                    // before dropping (expert choice: its rows), then its sum of probabilities
  RoutingCounts& operator+=(const RoutingCounts& other);
  int64_t num_experts() const { return (sums.size(0) - kNumSums) / 2; }
  at::Tensor expert_choices() const { return sums.narrow(0, kNumSums, num_experts()); }
};

// What the counts say, read from their device. Zeros where there are no tokens.
struct RoutingStatistics {
  double tokens = 0.0;
  double dropped_fraction = 0.0;         // choices without a slot; expert choice: tokens without an expert
  double left_behind_fraction = 0.0;     // tokens without any expert
  double expert_utilization = 0.0;       // slots in use over all slots
  double router_entropy = 0.0;           // mean, nats
  double router_confidence = 0.0;        // mean of the largest probability
  double router_z_loss = 0.0;            // mean of logsumexp(logits)^2
  double importance_loss = 0.0;          // squared coefficient of variation of sum_t p (Shazeer et al. 2017)
  std::vector<double> expert_load = {};  // [num_experts]: share of the choices that each expert is, before dropping
};
RoutingStatistics read_statistics(const RoutingCounts& counts);

}  // namespace switchyard::ops
