#include "plan/ownership.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <utility>

namespace switchyard {
namespace {

constexpr double kWide = 4.0;  // bytes of an f32

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

// Optimiser slots of one matrix, in f32 values.
int64_t slot_numel(const ParameterSpec& spec, const Workload& workload) {
  const int64_t numel = matrix_numel(spec);
  if (workload.is_adamw) return 2 * numel;
  const std::vector<int64_t> sides(spec.shape.begin() + (spec.is_expert() ? 1 : 0), spec.shape.end());
  const bool is_factored =
      sides.size() == 2 && std::min(sides[0], sides[1]) >= std::max<int64_t>(1, workload.min_dim_size_to_factor);
  return is_factored ? sides[0] + sides[1] : numel;
}

// The least loaded rank of a run, ranks ordered so that those with the same experts are neighbours.
class Loads {
 public:
  explicit Loads(const Layout& layout)
      : layout_(layout), leaves_(std::bit_ceil(static_cast<size_t>(layout.num_ranks()))) {
    least_.assign(2 * leaves_, kNobody);
    for (int64_t rank = 0; rank < layout.num_ranks(); ++rank) least_[leaves_ + place(rank)] = {0, rank};
    for (size_t node = leaves_ - 1; node > 0; --node) refresh(node);
  }

  // Gives `numel` values to the least loaded rank, the lowest of several, whose expert place is in `experts`.
  int64_t give(const Slice& experts, int64_t numel) {
    const auto same = static_cast<size_t>(layout_.data * layout_.tensor);
    auto best = kNobody;
    size_t begin = leaves_ + static_cast<size_t>(experts.begin) * same,
           end = leaves_ + static_cast<size_t>(experts.end) * same;
    for (; begin < end; begin /= 2, end /= 2) {
      if (begin % 2 == 1) best = std::min(best, least_[begin++]);
      if (end % 2 == 1) best = std::min(best, least_[--end]);
    }
    size_t node = leaves_ + place(best.second);
    least_[node].first += numel;
    for (node /= 2; node > 0; node /= 2) refresh(node);
    return best.second;
  }

 private:
  using Load = std::pair<int64_t, int64_t>;  // values, rank
  static constexpr Load kNobody{std::numeric_limits<int64_t>::max(), 0};

  size_t place(int64_t rank) const {
    const auto at = place_of(layout_, rank);
    return static_cast<size_t>((at.expert * layout_.data + at.data) * layout_.tensor + at.tensor);
  }
  void refresh(size_t node) { least_[node] = std::min(least_[2 * node], least_[2 * node + 1]); }

  const Layout& layout_;
  size_t leaves_;
  std::vector<Load> least_;  // a tree: of node n's leaves, n's children are 2n and 2n + 1
};

// Expert places that hold an expert's unit; all of them hold a whole matrix.
struct Candidate {
  Unit unit;
  Slice places;
  int64_t numel;
};

void add_candidates(const ParameterSpec& spec, size_t number, const Layout& layout,
                    std::vector<Candidate>& candidates) {
  if (!spec.is_expert()) {
    candidates.push_back(
        {{.spec = number, .experts = {0, 1}, .places = layout.data * layout.expert}, {0, layout.expert}, spec.numel()});
    return;
  }
  const int64_t num_experts = spec.shape[0];
  const bool is_few = num_experts < layout.expert;
  for (int64_t group = 0; group < std::min(num_experts, layout.expert); ++group) {
    // Ranks of the expert axis with these experts: one, or several where there are fewer experts than ranks.
    const auto experts = is_few ? Slice{group, group + 1} : even_slice(num_experts, layout.expert, group);
    const auto places = is_few ? even_slice(layout.expert, num_experts, group) : Slice{group, group + 1};
    const int64_t pieces = std::min(layout.data * places.size() * layout.tensor, experts.size());
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const auto run = even_slice(experts.size(), pieces, piece);
      candidates.push_back({{.spec = number,
                             .experts = {experts.begin + run.begin, experts.begin + run.end},
                             .places = layout.data * places.size()},
                            places,
                            run.size() * matrix_numel(spec)});
    }
  }
}

// Values of one rank's shards, by what happens to them.
struct HeldValues {
  double trained = 0, copied = 0;
  double own_sums = 0;  // of those whose gradient no other rank of the tensor group has
};

HeldValues held_values(const std::vector<ParameterSpec>& specs, const Workload& workload, const Layout& layout,
                       int64_t rank) {
  HeldValues held;
  const auto shards = shards_of(specs, layout, rank);
  for (size_t number = 0; number < specs.size(); ++number) {
    const auto& spec = specs[number];
    if (spec.is_buffer()) continue;
    const auto numel = static_cast<double>(shards[number].numel());
    held.trained += numel;
    if (is_cut(spec, layout) || spec.is_expert()) held.own_sums += numel;
    // In bf16 every narrow matrix has a copy, the table only for a tied output; in fp32 only what is joined is copied.
    const bool is_table = spec.role == Role::kEmbedding;
    const bool is_tied = is_table && spec.name == "shared.weight" && workload.model.tie_output;
    const bool is_joined = spec.role == Role::kAttention && !spec.name.ends_with(".o.weight") &&
                           !spec.name.ends_with("EncDecAttention.q.weight");
    const bool narrows = workload.is_bf16 && !spec.is_wide;
    if (narrows ? !is_table || is_tied : is_joined) held.copied += numel;
  }
  return held;
}

}  // namespace

std::vector<Unit> plan_units(const std::vector<ParameterSpec>& specs, const Layout& layout) {
  std::vector<Candidate> candidates;
  for (size_t number = 0; number < specs.size(); ++number)
    if (!specs[number].is_buffer()) add_candidates(specs[number], number, layout, candidates);
  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t left, size_t right) { return candidates[left].numel > candidates[right].numel; });
  Loads loads(layout);
  for (const size_t index : order)
    candidates[index].unit.owner = loads.give(candidates[index].places, candidates[index].numel);
  std::vector<Unit> units;
  for (const auto& candidate : candidates) units.push_back(candidate.unit);
  return units;
}

std::vector<RankState> rank_states(const Workload& workload, const Layout& layout) {
  const auto specs = parameter_specs(workload.model);
  std::vector<RankState> ranks(static_cast<size_t>(layout.num_ranks()));
  const int64_t by_place = layout.expert * layout.tensor;  // data ranks hold the same
  for (int64_t rank = 0; rank < layout.num_ranks(); ++rank) {
    auto& state = ranks[static_cast<size_t>(rank)];
    if (rank >= by_place) {
      state = ranks[static_cast<size_t>(rank % by_place)];
      continue;
    }
    const auto held = held_values(specs, workload, layout, rank);
    state.held = kWide * held.trained;
    state.gradients_sent = kWide * held.own_sums;
    state.values_received = kWide * held.trained;
    state.compute_copy = held.copied * (workload.is_bf16 ? 2.0 : 4.0);
  }
  // Of ranks of a tensor group that hold the same matrix, the one at the owner's place in its group speaks for it.
  std::vector<double> spoken_for(static_cast<size_t>(layout.tensor), 0.0);
  for (const auto& unit : plan_units(specs, layout)) {
    const auto& spec = specs[unit.spec];
    const auto matrices = static_cast<double>(unit.experts.size()), numel = static_cast<double>(matrix_numel(spec));
    const auto places = static_cast<double>(unit.places);
    auto& owner = ranks[static_cast<size_t>(unit.owner)];
    const int64_t tensor_rank = place_of(layout, unit.owner).tensor;
    const bool cut = is_cut(spec, layout);
    const double whole = kWide * matrices * numel,
                 own = kWide * matrices * static_cast<double>(part_numel(spec, layout, tensor_rank));
    owner.slots += kWide * matrices * static_cast<double>(slot_numel(spec, workload));
    if (cut) owner.whole_masters += whole;
    if (!cut && !spec.is_expert()) spoken_for[static_cast<size_t>(tensor_rank)] += whole;
    owner.gradients_received += places * whole - own;
    owner.gradients_sent -= own;
    owner.values_sent += places * whole * (cut ? 1.0 : static_cast<double>(layout.tensor)) - own;
    owner.values_received -= own;
  }
  for (int64_t rank = 0; rank < layout.num_ranks(); ++rank)
    ranks[static_cast<size_t>(rank)].gradients_sent += spoken_for[static_cast<size_t>(rank % layout.tensor)];
  return ranks;
}

}  // namespace switchyard
