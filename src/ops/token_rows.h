// The rows of each token in a dispatch: the way back from expert order to token order.
#pragma once

#include <ATen/core/Tensor.h>

#include <numeric>
#include <vector>

#include "ops/backend.h"

namespace switchyard::ops {

// Rows of token t, in expert order, are row[first[t]] to row[first[t + 1] - 1].
struct TokenRows {
  std::vector<int64_t> first, row;

  // token [rows] i64: the token of each row.
  TokenRows(const at::Tensor& token, int64_t tokens) : first(static_cast<size_t>(tokens) + 1, 0) {
    const auto* of = read<int64_t>(token);
    const int64_t rows = token.size(0);
    for (int64_t n = 0; n < rows; ++n) ++first[static_cast<size_t>(of[n]) + 1];
    std::partial_sum(first.begin(), first.end(), first.begin());
    row.resize(static_cast<size_t>(rows));
    auto next = first;
    for (int64_t n = 0; n < rows; ++n) row[static_cast<size_t>(next[static_cast<size_t>(of[n])]++)] = n;
  }
  int64_t num_tokens() const { return static_cast<int64_t>(first.size()) - 1; }
};

}  // namespace switchyard::ops
