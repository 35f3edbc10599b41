#include "parallel/update_plan.h"

#include <algorithm>
#include <numeric>

namespace switchyard {
namespace {

const Shard& shard_of(const UpdatePlan& plan, const UpdateUnit& unit, int64_t rank) {
  return plan.shards.ranks[static_cast<size_t>(rank)][unit.parameter];
}

// A parameter in as many units as its holders allow, without owners yet.
void add_units(const ParameterSpec& spec, size_t parameter, const Layout& layout, std::vector<UpdateUnit>& units) {
  if (spec.is_buffer()) return;
  if (!spec.is_expert()) {
    units.push_back({parameter, {0, 1}});
    return;
  }
  for (int64_t rank = 0; rank < layout.expert; ++rank) {
    const auto share = expert_share(spec.shape[0], layout.expert, rank);
    if (share.ranks.begin != rank) continue;  // counted with the first rank that holds them
    const int64_t holders = layout.data * share.ranks.size() * layout.tensor;
    const int64_t pieces = std::min(holders, share.experts.size());
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const auto run = even_slice(share.experts.size(), pieces, piece);
      units.push_back({parameter, {share.experts.begin + run.begin, share.experts.begin + run.end}});
    }
  }
}

int64_t numel(const ParameterSpec& spec, const UpdateUnit& unit) {
  return spec.is_expert() ? spec.numel() / spec.shape[0] * unit.experts.size() : spec.numel();
}

}  // namespace

bool UpdatePlan::is_held(const UpdateUnit& unit, int64_t rank) const {
  if (!specs[unit.parameter].is_expert()) return true;
  const auto& held = shard_of(*this, unit, rank).axes[0];
  return held.begin <= unit.experts.begin && unit.experts.end <= held.end;
}

bool UpdatePlan::contributes(const UpdateUnit& unit, int64_t rank) const {
  if (!is_held(unit, rank)) return false;
  const bool is_cut = specs[unit.parameter].tensor_axis >= 0;
  const auto& layout = shards.layout;
  return is_cut || place_of(layout, rank).tensor == place_of(layout, unit.owner).tensor;
}

int64_t UpdatePlan::held_numel(const UpdateUnit& unit, int64_t rank) const {
  if (!is_held(unit, rank)) return 0;
  const auto& shard = shard_of(*this, unit, rank);
  if (!specs[unit.parameter].is_expert()) return shard.numel();
  return shard.numel() / shard.axes[0].size() * unit.experts.size();
}

UpdatePlan update_plan(const std::vector<ParameterSpec>& specs, const Layout& layout) {
  UpdatePlan plan{.shards = shard_plan(specs, layout), .units = {}, .specs = specs};
  for (size_t parameter = 0; parameter < specs.size(); ++parameter)
    add_units(specs[parameter], parameter, layout, plan.units);
  std::vector<size_t> order(plan.units.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto size = [&](size_t unit) { return numel(specs[plan.units[unit].parameter], plan.units[unit]); };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return size(a) > size(b); });
  std::vector<int64_t> owned(static_cast<size_t>(layout.num_ranks()), 0);
  for (const size_t unit : order) {
    int64_t owner = -1;
    for (int64_t rank = 0; rank < layout.num_ranks(); ++rank)
      if (plan.is_held(plan.units[unit], rank) &&
          (owner < 0 || owned[static_cast<size_t>(rank)] < owned[static_cast<size_t>(owner)]))
        owner = rank;
    plan.units[unit].owner = owner;
    owned[static_cast<size_t>(owner)] += size(unit);
  }
  return plan;
}

std::vector<int64_t> unit_shape(const ParameterSpec& spec, const UpdateUnit& unit) {
  auto shape = spec.shape;
  if (spec.is_expert()) shape[0] = unit.experts.size();
  return shape;
}

}  // namespace switchyard
