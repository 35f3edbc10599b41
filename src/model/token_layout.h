// The tokens of a batch as one stack reads them.
#pragma once

#include <ATen/core/Tensor.h>

namespace switchyard {

struct TokenLayout {
  at::Tensor ids = {};   // [batch, length] i64
  at::Tensor mask = {};  // [batch, length] bool or undefined (all real): false is padding, neither attended nor routed
  // Packed rows, several examples one behind the other: which of its row's examples a token belongs to, counted from 0,
  // and that example's number in the step's batch. Undefined: a row is one example, number first_example + row.
  at::Tensor segment = {};  // [batch, length] i64 or undefined
  at::Tensor example = {};  // [batch, length] i64 or undefined

  int64_t batch_size() const { return ids.size(0); }
  int64_t length() const { return ids.size(1); }
};

// Throws Error, beginning with `what`, unless ids are int64 [batch, length] with a mask of their shape. Packed rows are
// refused: no attention by segments is computed yet.
void check_layout(const TokenLayout& tokens, const char* what);

}  // namespace switchyard
