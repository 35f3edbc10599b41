#include "plan/ownership.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <utility>

namespace switchyard {
namespace {

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

struct Candidate {
  Unit unit;
  int64_t numel = 0;
};

void add_candidates(const ParameterSpec& spec, size_t number, const Layout& layout,
                    std::vector<Candidate>& candidates) {
  if (!spec.is_expert()) {
    candidates.push_back({{.spec = number, .experts = {0, 1}, .places = {0, layout.expert}}, spec.numel()});
    return;
  }
  for (int64_t rank = 0; rank < layout.expert; ++rank) {
    const auto [experts, places] = expert_share(spec.shape[0], layout.expert, rank);
    if (places.begin != rank) continue;  // counted with the first rank that holds them
    const int64_t pieces = std::min(layout.data * places.size() * layout.tensor, experts.size());
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const auto run = even_slice(experts.size(), pieces, piece);
      candidates.push_back(
          {{.spec = number, .experts = {experts.begin + run.begin, experts.begin + run.end}, .places = places},
           run.size() * (spec.numel() / spec.shape[0])});
    }
  }
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
    candidates[index].unit.owner = loads.give(candidates[index].unit.places, candidates[index].numel);
  std::vector<Unit> units;
  for (const auto& candidate : candidates) units.push_back(candidate.unit);
  return units;
}

}  // namespace switchyard
