#include "plan/step_time.h"

#include <algorithm>

#include "model/flops.h"
#include "plan/activations.h"

namespace switchyard {
namespace {

// Products of one sequence at experts, which the busiest rank of an expert group does more of.
double expert_flops(const Workload& workload) {
  double flops = 0;
  for (const auto& site : sparse_sites(workload)) {
    const auto d = static_cast<double>(workload.model.d_model);
    const double width = site.is_attention
                             ? static_cast<double>(site.out_width)
                             : (workload.model.gated ? 3.0 : 2.0) * static_cast<double>(workload.model.d_ff);
    flops += 2.0 * d * width * routed_rows(workload, site, 1);
  }
  return flops;
}

}  // namespace

Bound StepTime::bound() const {
  const double in_memory = update + (memory > compute ? memory : 0.0);
  const double in_products = memory > compute ? 0.0 : compute;
  if (wire >= in_memory && wire >= in_products) return Bound::kWire;
  return in_products >= in_memory ? Bound::kCompute : Bound::kMemory;
}

double seconds_of(const Cluster& cluster, const Collective& collective) {
  if (collective.waits == 0) return 0.0;
  const auto waits = static_cast<double>(collective.waits);
  if (collective.kind == CollectiveKind::kAllReduce) {
    // all_reduce_seconds() takes what is reduced, the collective says what a ring sends of it.
    const double reduced = collective.busiest / ring_bytes(collective.devices.size, 1.0);
    return waits * all_reduce_seconds(cluster, collective.devices, reduced / waits);
  }
  return waits * all_to_all_seconds(cluster, collective.devices, collective.busiest / waits);
}

StepTime step_time(const Cluster& cluster, const Workload& workload, const Layout& layout,
                   const std::vector<RankState>& ranks, const std::vector<Collective>& traffic, int64_t micro_batch) {
  const auto share = batch_share(workload, layout);
  const auto sequences = static_cast<double>(share.sequences);
  const int64_t passes = (share.sequences + micro_batch - 1) / micro_batch;
  const auto micro_batches = static_cast<double>(passes);
  const double flops = computed_flops(workload) + (workload.load_imbalance - 1.0) * expert_flops(workload);
  const double rate = (workload.is_bf16 ? cluster.flops : cluster.fp32_flops) * cluster.efficiency;

  StepTime time;
  time.compute = 3.0 * sequences * flops / static_cast<double>(layout.tensor) / rate;
  double held = 0, owned = 0;
  for (const auto& rank : ranks) {
    held = std::max(held, rank.held);
    owned = std::max(owned, rank.slots + rank.whole_masters + rank.gradients_received);
  }
  // A pass reads each weight twice and writes its gradient, and writes what it saves and reads it back with as much
  // again of gradients.
  const double copy = workload.is_bf16 ? 0.5 : 1.0;
  const double saved = activations(pass_segments(workload, layout, micro_batch));
  time.memory = micro_batches * (3.0 * copy * held + 4.0 * saved) / cluster.memory_bandwidth;
  // Per micro-batch: gradients in the compute dtype are read and added to f32 ones. Once: weights are cast, gradients
  // packed, summed, read for the update and new values written.
  time.update =
      (micro_batches * (copy + 2.0) * held + (1.0 + copy) * held + 6.0 * held + 2.0 * owned) / cluster.memory_bandwidth;
  for (const auto& collective : traffic) time.wire += seconds_of(cluster, collective);
  return time;
}

}  // namespace switchyard
