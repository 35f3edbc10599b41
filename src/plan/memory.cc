#include "plan/memory.h"

#include <algorithm>

#include "plan/activations.h"

namespace switchyard {

MemoryUse memory_use(const Workload& workload, const Layout& layout, const std::vector<RankState>& ranks,
                     int64_t micro_batch) {
  const auto segments = pass_segments(workload, layout, micro_batch);
  const bool one_pass = batch_share(workload, layout).sequences <= micro_batch, one_rank = layout.num_ranks() == 1;
  const auto fate = one_pass                       ? (one_rank ? GradientFate::kKept : GradientFate::kWidened)
                    : one_rank && workload.is_bf16 ? GradientFate::kAddedLater
                                                   : GradientFate::kAdded;
  const auto pass = pass_memory(segments, fate, workload.is_bf16);
  MemoryUse fullest;
  for (const auto& rank : ranks) {
    MemoryUse use{.weights = rank.held + rank.compute_copy,
                  .copies = rank.compute_copy,
                  .gradients = one_pass ? pass.gradients : rank.held,
                  .optimizer = rank.slots + rank.whole_masters,
                  .activations = activations(segments)};
    // All buckets are in flight at once; gradients leave at the end of the backward pass, where activations are gone.
    // Whole matrices that tensor ranks cut are put together bucket by bucket as these go.
    const double matrices = rank.whole_masters / static_cast<double>(rank.num_buckets);
    const double in_flight =
        std::max(rank.gradients_sent + rank.gradients_received + matrices, rank.values_sent + rank.values_received);
    const double sums = one_pass ? 0.0 : rank.held;
    const double beyond = std::max(sums + pass.peak, use.gradients + in_flight) - use.gradients - use.activations;
    use.buffers = std::max(0.0, beyond);
    use.overlap = std::max(0.0, -beyond);
    if (use.total() > fullest.total()) fullest = use;
  }
  return fullest;
}

}  // namespace switchyard
