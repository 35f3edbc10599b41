#include "ops/assignment.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>

#include "kernels/scratch.h"
#include "ops/backend.h"

namespace switchyard::ops {
namespace {

template <class Function>
decltype(auto) with_score_type(const at::Tensor& score, Function&& function) {
  if (score.scalar_type() == at::kDouble) return function(double{});
  return function(float{});
}

// The groups of consecutive tokens, each with its capacity.
template <class Function>
void for_each_group(int64_t tokens, const RouteOptions& options, Function&& function) {
  for (int64_t start = 0, group = 0; start < tokens; start += options.group_size, ++group)
    function(start, std::min(tokens, start + options.group_size), options.expert_capacity[static_cast<size_t>(group)]);
}

// Gives slots pair by pair in the order that a policy visits (token, choice) pairs.
class SlotGiver {
 public:
  SlotGiver(const Choices& choices, int64_t num_experts, bool one_each)
      : expert_(read<int64_t>(choices.expert)),
        width_(choices.expert.size(1)),
        one_each_(one_each),
        used_(static_cast<size_t>(num_experts)),
        slot_(static_cast<size_t>(choices.expert.numel()), -1) {}

  void start_group(int64_t capacity) {
    capacity_ = capacity;
    std::fill(used_.begin(), used_.end(), 0);
  }
  void visit(int64_t token, int64_t choice) {
    const int64_t pair = token * width_ + choice, expert = expert_[pair];
    if (expert < 0 || (one_each_ && is_placed(token, choice))) return;
    int64_t& used = used_[static_cast<size_t>(expert)];
    if (used < capacity_) slot_[static_cast<size_t>(pair)] = used++;
  }
  const std::vector<int64_t>& slots() const { return slot_; }

 private:
  bool is_placed(int64_t token, int64_t before) const {
    const auto first = slot_.begin() + token * width_;
    return std::any_of(first, first + before, [](int64_t slot) { return slot >= 0; });
  }

  const int64_t* expert_;
  int64_t width_;
  bool one_each_;
  int64_t capacity_ = 0;
  std::vector<int64_t> used_;  // slots in use, by expert
  std::vector<int64_t> slot_;  // [tokens, width], -1: none
};

// Real tokens of a group in the order in which they ask for slots.
std::vector<int64_t> token_order(const Choices& choices, const bool* mask, int64_t start, int64_t end,
                                 bool by_probability) {
  std::vector<int64_t> order;
  order.reserve(static_cast<size_t>(end - start));
  for (int64_t token = start; token < end; ++token)
    if (mask == nullptr || mask[token]) order.push_back(token);
  if (by_probability)
    with_score_type(choices.probability, [&](auto type) {
      const auto* p = read<decltype(type)>(choices.probability);
      const int64_t width = choices.probability.size(1);
      std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return p[a * width] > p[b * width]; });
    });
  return order;
}

// All pairs of a group, those with the highest probability first: an expert then keeps its best ones.
std::vector<std::pair<int64_t, int64_t>> pairs_by_probability(const Choices& choices, const std::vector<int64_t>& order,
                                                              int64_t width) {
  std::vector<std::pair<int64_t, int64_t>> pairs;
  for (const int64_t token : order)
    for (int64_t choice = 0; choice < width; ++choice) pairs.emplace_back(token, choice);
  with_score_type(choices.probability, [&](auto type) {
    const auto* p = read<decltype(type)>(choices.probability);
    std::stable_sort(pairs.begin(), pairs.end(), [&](const auto& a, const auto& b) {
      return p[a.first * width + a.second] > p[b.first * width + b.second];
    });
  });
  return pairs;
}

// Kept pairs, sorted by expert and within an expert by token: a stable counting sort.
Assignment collect(const at::Tensor& expert, const std::vector<int64_t>& slots, int64_t num_experts) {
  Assignment result;
  const auto* experts = read<int64_t>(expert);
  const int64_t width = expert.size(1);
  auto& num_rows = result.num_rows;
  num_rows.assign(static_cast<size_t>(num_experts), 0);
  for (size_t pair = 0; pair < slots.size(); ++pair)
    if (slots[pair] >= 0) ++num_rows[static_cast<size_t>(experts[pair])];
  std::vector<int64_t> next(static_cast<size_t>(num_experts), 0);
  std::partial_sum(num_rows.begin(), num_rows.end() - 1, next.begin() + 1);
  const int64_t rows = std::accumulate(num_rows.begin(), num_rows.end(), int64_t{0});
  result.token = at::empty({rows}, at::kLong);
  result.expert.resize(static_cast<size_t>(rows));
  result.slot.resize(static_cast<size_t>(rows));
  auto* token = write<int64_t>(result.token);
  for (size_t pair = 0; pair < slots.size(); ++pair) {
    if (slots[pair] < 0) continue;
    const auto row = static_cast<size_t>(next[static_cast<size_t>(experts[pair])]++);
    token[row] = static_cast<int64_t>(pair) / width;
    result.expert[row] = experts[pair];
    result.slot[row] = slots[pair];
  }
  return result;
}

}  // namespace

Assignment assign_choices(const Choices& choices, int64_t num_experts, const bool* mask, const RouteOptions& options) {
  const int64_t tokens = choices.expert.size(0), width = choices.expert.size(1);
  SlotGiver giver(choices, num_experts, options.router == RouterKind::kNoTokenLeftBehind);
  int64_t num_slots = 0;
  for_each_group(tokens, options, [&](int64_t start, int64_t end, int64_t capacity) {
    giver.start_group(capacity);
    num_slots += capacity * num_experts;
    const auto order = token_order(choices, mask, start, end, options.drop_priority == DropPriority::kBatch);
    if (options.drop_priority == DropPriority::kExpert && options.router == RouterKind::kTopK) {
      for (const auto& [token, choice] : pairs_by_probability(choices, order, width)) giver.visit(token, choice);
    } else if (options.drop_priority == DropPriority::kToken) {
      for (const int64_t token : order)
        for (int64_t choice = 0; choice < width; ++choice) giver.visit(token, choice);
    } else {
      for (int64_t choice = 0; choice < width; ++choice)
        for (const int64_t token : order) giver.visit(token, choice);
    }
  });
  auto result = collect(choices.expert, giver.slots(), num_experts);
  result.num_slots = num_slots;
  return result;
}

Assignment assign_experts_choice(const at::Tensor& score, const bool* mask, const RouteOptions& options) {
  const int64_t tokens = score.size(0), num_experts = score.size(1);
  struct Pick {
    int64_t token, slot;
  };
  std::vector<std::vector<Pick>> picks(static_cast<size_t>(num_experts));
  Assignment result;
  const Choices none{.expert = {}, .probability = score};
  with_score_type(score, [&](auto type) {
    using T = decltype(type);
    const auto* scores = read<T>(score);
    for_each_group(tokens, options, [&](int64_t start, int64_t end, int64_t capacity) {
      const auto order = token_order(none, mask, start, end, false);
      const auto take = std::min(order.size(), static_cast<size_t>(capacity));
      result.num_slots += capacity * num_experts;
      // What one expert takes.
      const auto pick = [&](int64_t expert) {
        std::vector<std::pair<T, int64_t>> candidates;
        candidates.reserve(order.size());
        for (const int64_t token : order) candidates.emplace_back(scores[token * num_experts + expert], token);
        const auto better = [](const auto& a, const auto& b) {
          return a.first > b.first || (a.first == b.first && a.second < b.second);
        };
        const auto last = candidates.begin() + static_cast<int64_t>(take);
        if (last != candidates.end()) std::nth_element(candidates.begin(), last, candidates.end(), better);
        std::sort(candidates.begin(), last, better);
        std::vector<Pick> taken;
        for (size_t slot = 0; slot < take; ++slot)
          taken.push_back({candidates[slot].second, static_cast<int64_t>(slot)});
        std::sort(taken.begin(), taken.end(), [](const Pick& a, const Pick& b) { return a.token < b.token; });
        auto& all = picks[static_cast<size_t>(expert)];
        all.insert(all.end(), taken.begin(), taken.end());
      };
      kernels::RegionErrors errors;
#pragma omp parallel for schedule(static) if (num_experts * (end - start) > 4096)
      for (int64_t expert = 0; expert < num_experts; ++expert) errors.run([&] { pick(expert); });
      errors.rethrow();
    });
  });
  int64_t rows = 0;
  for (const auto& taken : picks) {
    result.num_rows.push_back(static_cast<int64_t>(taken.size()));
    rows += static_cast<int64_t>(taken.size());
  }
  result.token = at::empty({rows}, at::kLong);
  auto* token = write<int64_t>(result.token);
  for (int64_t expert = 0; expert < num_experts; ++expert)
    for (const auto& pick : picks[static_cast<size_t>(expert)]) {
      *token++ = pick.token;
      result.expert.push_back(expert);
      result.slot.push_back(pick.slot);
    }
  return result;
}

}  // namespace switchyard::ops
