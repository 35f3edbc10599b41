// Who goes where: the part of routing that has no gradient. On the CPU, in the router's precision.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "ops/router.h"

namespace switchyard::ops {

// Each token's experts, best first.
struct Choices {
  at::Tensor expert;       // [tokens, width] i64; -1: this choice is not used
  at::Tensor probability;  // [tokens, width] of the score's dtype: what kBatch and kExpert order by
};

struct Assignment {
  at::Tensor token;               // [rows] i64, expert by expert
  std::vector<int64_t> num_rows;  // [num_experts]
  std::vector<int64_t> expert;    // [rows]
  std::vector<int64_t> slot;      // [rows]: the place in the expert's buffer of its group, in order of assignment
  int64_t num_slots = 0;          // of all experts and groups
};

// Slots for chosen experts, group by group; tokens whose mask is false get none. options: router kTopK or
// kNoTokenLeftBehind, group_size, expert_capacity, priority.
Assignment assign_choices(const Choices& choices, int64_t num_experts, const bool* mask, const RouteOptions& options);

// Expert choice: in each group each expert takes the expert_capacity real tokens that score it highest, equals in token
// order. score [tokens, num_experts]. Its slots are in order of falling score.
Assignment assign_experts_choice(const at::Tensor& score, const bool* mask, const RouteOptions& options);

}  // namespace switchyard::ops
