#include "plan/rank_state.h"

#include <algorithm>

#include "plan/ownership.h"

namespace switchyard {
namespace {

constexpr double kWide = 4.0;                       // bytes of an f32
constexpr int64_t kBucketNumel = int64_t{1} << 22;  // of a rank's own part (parallel/update_exchange)

// Values of one matrix, or of one expert's.
int64_t matrix_numel(const ParameterSpec& spec) {
  return spec.is_expert() ? spec.numel() / std::max<int64_t>(1, spec.shape[0]) : spec.numel();
}

bool is_cut(const ParameterSpec& spec, const Layout& layout) { return spec.tensor_axis >= 0 && layout.tensor > 1; }

// The share of a matrix that tensor rank `tensor` holds, in values.
int64_t part_numel(const ParameterSpec& spec, const Layout& layout, int64_t tensor) {
  if (!is_cut(spec, layout)) return matrix_numel(spec);
  const int64_t width = spec.shape[static_cast<size_t>(spec.tensor_axis)];
  return matrix_numel(spec) / width * even_slice(width, layout.tensor, tensor, spec.tensor_unit).size();
}

// Optimiser slots of one matrix, in values.
int64_t slot_numel(const ParameterSpec& spec, const Workload& workload) {
  const int64_t numel = matrix_numel(spec);
  if (workload.optimizer == "adamw") return 2 * numel;
  const bool is_layer_matrix = spec.role == Role::kAttention || spec.role == Role::kFeedForward;
  if (workload.optimizer == "muon" && is_layer_matrix && (workload.muon_experts || !spec.is_expert())) return numel;
  const std::vector<int64_t> sides(spec.shape.begin() + (spec.is_expert() ? 1 : 0), spec.shape.end());
  const bool is_factored =
      sides.size() == 2 && std::min(sides[0], sides[1]) >= std::max<int64_t>(1, workload.min_dim_size_to_factor);
  return is_factored ? sides[0] + sides[1] : numel;
}

// In bf16 every narrow matrix has a copy, the table only for a tied output; in f32 only what is joined is copied.
double copied_share(const ParameterSpec& spec, const Workload& workload) {
  if (workload.is_bf16 && !spec.is_wide)
    return spec.role != Role::kEmbedding || (spec.name == "shared.weight" && workload.model.tie_output) ? 0.5 : 0.0;
  const bool is_joined = spec.role == Role::kAttention && !spec.name.ends_with(".o.weight") &&
                         !spec.name.ends_with("EncDecAttention.q.weight");
  return is_joined ? 1.0 : 0.0;
}

// New values travel as passes read them: in the compute dtype, but for tables and what stays f32. Of f32 bytes the
// share.
double value_share(const ParameterSpec& spec, const Workload& workload) {
  return workload.is_bf16 && !spec.is_wide && spec.role != Role::kEmbedding ? 0.5 : 1.0;
}

// Fills in the states of one layout's ranks. What holders of the same parts have in common is kept by their (expert,
// tensor) place, as there are many; what differs for the owner of a unit is added to it.
class StateMaker {
 public:
  StateMaker(const Workload& workload, const Layout& layout)
      : workload_(workload),
        layout_(layout),
        ranks_(static_cast<size_t>(layout.num_ranks())),
        by_place_(static_cast<size_t>(layout.expert * layout.tensor)) {}

  // `experts` of a parameter that the same ranks hold, in all their units.
  void add_holders(const ParameterSpec& spec, const Slice& places, int64_t experts) {
    const Sharing sharing = sharing_of(spec, places);
    for (int64_t tensor = 0; tensor < layout_.tensor; ++tensor) {
      const double part = kWide * static_cast<double>(experts * part_numel(spec, layout_, tensor));
      for (int64_t expert = places.begin; expert < places.end; ++expert) {
        auto& state = by_place_[static_cast<size_t>(expert * layout_.tensor + tensor)];
        state.held += part;
        state.compute_copy += part * copied_share(spec, workload_);
        if (sharing.is_cut || layout_.tensor == 1) send_gradients(state, part, sharing);
        // From the owner; in two hops each holder passes its run on to all others.
        const double values = part * value_share(spec, workload_);
        state.values_received += values;
        if (!sharing.is_direct) state.values_sent += values * (1.0 - 1.0 / sharing.holders);
      }
    }
  }

  void add_owner(const ParameterSpec& spec, const Unit& unit) {
    const Sharing sharing = sharing_of(spec, unit.places);
    const int64_t tensor = place_of(layout_, unit.owner).tensor;
    const auto matrices = static_cast<double>(unit.experts.size());
    const double whole = kWide * matrices * static_cast<double>(matrix_numel(spec));
    const double own = kWide * matrices * static_cast<double>(part_numel(spec, layout_, tensor));
    // A tensor group's gradients are equal: those of the owner's place count.
    if (!sharing.is_cut && layout_.tensor > 1)
      for (int64_t expert = unit.places.begin; expert < unit.places.end; ++expert)
        send_gradients(by_place_[static_cast<size_t>(expert * layout_.tensor + tensor)], whole, sharing);
    auto& owner = ranks_[static_cast<size_t>(unit.owner)];
    owner.slots += kWide * matrices * static_cast<double>(slot_numel(spec, workload_));
    if (sharing.is_cut) owner.whole_masters += whole;
    // What comes from, and goes to, each place: all of it, or a run.
    const double gradient_run = sharing.is_direct ? 1.0 : 1.0 / sharing.places;
    const double value_run = value_share(spec, workload_) * (sharing.is_direct ? 1.0 : 1.0 / sharing.holders);
    const double copies = sharing.is_cut ? sharing.places : sharing.holders;
    owner.gradients_received += sharing.places * gradient_run * whole - gradient_run * own;
    owner.gradients_sent -= gradient_run * own;
    owner.values_sent += copies * value_run * whole - value_run * own;
    owner.values_received -= value_run * own;
  }

  std::vector<RankState> finish() {
    for (int64_t rank = 0; rank < layout_.num_ranks(); ++rank) {
      auto& state = ranks_[static_cast<size_t>(rank)];
      const auto& shared = by_place_[static_cast<size_t>(rank % (layout_.expert * layout_.tensor))];
      state.held = shared.held;
      state.compute_copy = shared.compute_copy;
      state.gradients_sent += shared.gradients_sent;
      state.gradients_received += shared.gradients_received;
      state.values_sent += shared.values_sent;
      state.values_received += shared.values_received;
      state.num_buckets = static_cast<int64_t>(state.held / kWide) / kBucketNumel + 1;
    }
    return std::move(ranks_);
  }

 private:
  struct Sharing {
    bool is_cut = false, is_direct = true;
    double places = 1;   // (data, expert) places
    double holders = 1;  // ranks that hold the same part
  };
  Sharing sharing_of(const ParameterSpec& spec, const Slice& places) const {
    const bool cut = is_cut(spec, layout_);
    const int64_t count = layout_.data * places.size();
    return {.is_cut = cut,
            .is_direct = count <= kMostDirectPlaces,
            .places = static_cast<double>(count),
            .holders = static_cast<double>(cut ? count : count * layout_.tensor)};
  }

  // All of its part: to the owner, or in runs to the other places and its own run, summed, to the owner.
  static void send_gradients(RankState& state, double part, const Sharing& sharing) {
    state.gradients_sent += part;
    if (!sharing.is_direct) state.gradients_received += part * (1.0 - 1.0 / sharing.places);
  }

  const Workload& workload_;
  const Layout& layout_;
  std::vector<RankState> ranks_, by_place_;
};

}  // namespace

std::vector<RankState> rank_states(const Workload& workload, const Layout& layout) {
  const auto specs = parameter_specs(workload.model);
  const auto units = plan_units(specs, layout);
  StateMaker maker(workload, layout);
  for (size_t begin = 0, end = 0; begin < units.size(); begin = end) {
    const auto& first = units[begin];
    while (end < units.size() && units[end].spec == first.spec && units[end].places == first.places) ++end;
    maker.add_holders(specs[first.spec], first.places, units[end - 1].experts.end - first.experts.begin);
    for (size_t unit = begin; unit < end; ++unit) maker.add_owner(specs[first.spec], units[unit]);
  }
  return maker.finish();
}

}  // namespace switchyard
