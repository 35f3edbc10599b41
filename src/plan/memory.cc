#include "plan/memory.h"

#include <algorithm>

#include "plan/activations.h"

namespace switchyard {

MemoryUse memory_use(const Workload& workload, const Layout& layout, const std::vector<RankState>& ranks,
                     int64_t micro_batch) {
  const auto pass = pass_memory(pass_segments(workload, layout, micro_batch));
  MemoryUse fullest;
  for (const auto& rank : ranks) {
    MemoryUse use{.weights = rank.held + rank.compute_copy,
                  .gradients = rank.held,
                  .optimizer = rank.slots + rank.whole_masters,
                  .activations = pass.activations};
    // All buckets are in flight at once; gradients leave at the end of the backward pass, where activations are gone.
    // Whole matrices that tensor ranks cut are put together bucket by bucket as these go.
    const double sums = rank.whole_masters / static_cast<double>(rank.num_buckets);
    const double in_flight =
        std::max(rank.gradients_sent + rank.gradients_received + sums, rank.values_sent + rank.values_received);
    use.buffers = std::max({0.0, pass.peak - pass.activations, in_flight - pass.activations});
    if (use.total() > fullest.total()) fullest = use;
  }
  return fullest;
}

}  // namespace switchyard
