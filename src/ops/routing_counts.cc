#include "ops/routing_counts.h"

#include <ATen/TensorOperators.h>

#include <numeric>
#include <span>

#include "ops/backend.h"

namespace switchyard::ops {

RoutingCounts& RoutingCounts::operator+=(const RoutingCounts& other) {
  sums = sums.defined() ? sums + other.sums : other.sums;
  return *this;
}

RoutingStatistics read_statistics(const RoutingCounts& counts) {
  const auto sums = counts.sums.cpu();
  const auto* sum = read<double>(sums);
  const auto num_experts = static_cast<size_t>(counts.num_experts());
  const std::span load(sum + RoutingCounts::kNumSums, num_experts), importance(load.data() + num_experts, num_experts);
  const auto share = [](double part, double all) { return all > 0.0 ? part / all : 0.0; };
  const double tokens = sum[RoutingCounts::kTokens];
  RoutingStatistics result{
      .tokens = tokens,
      .dropped_fraction = share(sum[RoutingCounts::kAsked] - sum[RoutingCounts::kGiven], sum[RoutingCounts::kAsked]),
      .left_behind_fraction = share(sum[RoutingCounts::kLeftBehind], tokens),
      .expert_utilization = share(sum[RoutingCounts::kRows], sum[RoutingCounts::kSlots]),
      .router_entropy = share(sum[RoutingCounts::kEntropy], tokens),
      .router_confidence = share(sum[RoutingCounts::kConfidence], tokens),
      .router_z_loss = share(sum[RoutingCounts::kSquaredLogPartition], tokens)};
  const double asked = std::accumulate(load.begin(), load.end(), 0.0);
  const double mean = std::accumulate(importance.begin(), importance.end(), 0.0) / static_cast<double>(num_experts);
  for (size_t expert = 0; expert < num_experts; ++expert) {
    result.expert_load.push_back(share(load[expert], asked));
    const double deviation = mean > 0.0 ? importance[expert] / mean - 1.0 : 0.0;
    result.importance_loss += deviation * deviation / static_cast<double>(num_experts);
  }
  return result;
}

}  // namespace switchyard::ops
