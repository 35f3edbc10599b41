#include "plan/planner.h"

#include <algorithm>
#include <cstdio>

#include "base/error.h"

namespace switchyard {
namespace {

std::string gibibytes(double bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g GiB", bytes / (1024.0 * 1024.0 * 1024.0));
  return text;
}

int64_t most_experts(const Workload& workload) {
  int64_t most = 0;
  for (const auto& site : sparse_sites(workload)) most = std::max(most, site.num_experts);
  return most;
}

// Why the model or its batch cannot be cut so; "" if they can.
std::string cannot_be_cut(const Workload& workload, const Layout& layout, const BatchShare& share) {
  const auto& model = workload.model;
  if (layout.tensor > model.num_heads)
    return join("tensor ", layout.tensor, " of ", model.num_heads, " heads leaves ranks without one");
  const int64_t experts = most_experts(workload);
  if (layout.expert > 1 && experts == 0) return "the model has no experts to spread; use data in place of expert";
  if (layout.expert > std::max<int64_t>(1, experts))
    return join("expert ", layout.expert, " of ", experts, " experts: the same as fewer expert and more data ranks");
  const int64_t ranks = layout.data * layout.expert;
  if (workload.batch_size % (ranks * share.unit) != 0)
    return join(workload.batch_size, " sequences, routed in groups of ", share.unit, ", are not ", ranks,
                " equal parts; make the batch a multiple of ", ranks * share.unit,
                share.unit > 1 ? ", lower routing.group_size," : "", " or cut tensors more");
  if (const int64_t wanted = workload.micro_batch_size;
      wanted > 0 && wanted < share.sequences && wanted % share.unit != 0)
    return join("micro-batches of ", wanted, " would split a routing group of ", share.unit, " sequences");
  return "";
}

std::string too_large(const MemoryUse& use, const Cluster& cluster) {
  const std::pair<const char*, double> parts[] = {{"weights", use.weights},
                                                  {"gradients", use.gradients},
                                                  {"optimizer", use.optimizer},
                                                  {"activations", use.activations},
                                                  {"buffers", use.buffers}};
  const auto* largest =
      std::max_element(std::begin(parts), std::end(parts), [](auto& a, auto& b) { return a.second < b.second; });
  return join("needs ", gibibytes(use.total()), " of ", gibibytes(cluster.memory_bytes), " a device, most of it ",
              largest->first, " (", gibibytes(largest->second), ")");
}

}  // namespace

PlannedLayout plan_layout(const Workload& workload, const Cluster& cluster, const Layout& layout) {
  PlannedLayout plan;
  plan.layout = layout;
  const auto share = batch_share(workload, layout);
  const auto ranks = rank_states(workload, layout);
  auto sizes = share.micro_batches;
  if (workload.micro_batch_size > 0) sizes = {std::min(workload.micro_batch_size, share.sequences)};
  for (auto size = sizes.rbegin(); size != sizes.rend(); ++size) {
    plan.micro_batch = *size;
    plan.memory = memory_use(workload, layout, ranks, *size);
    if (plan.memory.total() <= cluster.memory_bytes) break;
  }
  plan.traffic = step_traffic(workload, layout, ranks, plan.micro_batch);
  plan.time = step_time(cluster, workload, layout, ranks, plan.traffic, plan.micro_batch);
  plan.reason = cannot_be_cut(workload, layout, share);
  if (plan.reason.empty() && plan.memory.total() > cluster.memory_bytes) plan.reason = too_large(plan.memory, cluster);
  plan.fits = plan.reason.empty();
  return plan;
}

std::vector<PlannedLayout> plan_layouts(const Workload& workload, const Cluster& cluster) {
  validate(workload);
  validate(cluster);
  std::vector<PlannedLayout> plans;
  const int64_t devices = cluster.num_devices;
  for (int64_t expert = 1; expert <= devices; ++expert) {
    if (devices % expert != 0) continue;
    for (int64_t tensor = 1; tensor <= devices / expert; ++tensor)
      if (devices / expert % tensor == 0)
        plans.push_back(
            plan_layout(workload, cluster, {.data = devices / expert / tensor, .expert = expert, .tensor = tensor}));
  }
  std::stable_sort(plans.begin(), plans.end(), [](const PlannedLayout& left, const PlannedLayout& right) {
    if (left.fits != right.fits) return left.fits;
    return left.fits ? left.time.total() < right.time.total() : left.memory.total() < right.memory.total();
  });
  return plans;
}

}  // namespace switchyard
