// The tokens of a batch as one stack reads them.
#pragma once

#include <ATen/core/Tensor.h>

namespace switchyard {

struct TokenLayout {
  at::Tensor ids = {};   // [batch, length] i64
  at::Tensor mask = {};  // [batch, length] bool or undefined (all real): false is padding, neither attended nor routed
  // Packed rows, several examples one behind the other: which of its row's examples a token belongs to, counted from 1,
  // 0 for padding; and that example's number in the step's batch, any row's own for padding. Both or none; with them
  // the mask says where segments are. Undefined: a row is one example, number first_example + row.
  at::Tensor segment = {};  // [batch, length] i64 or undefined
  at::Tensor example = {};  // [batch, length] i64 or undefined

  int64_t batch_size() const { return ids.size(0); }
  int64_t length() const { return ids.size(1); }
  bool is_packed() const { return segment.defined(); }
};

// Throws Error, beginning with `what`, unless ids are int64 [batch, length] and the others, where they are there, of
// their shape.
void check_layout(const TokenLayout& tokens, const char* what);

// What packed tokens draw noise by: that of the same examples in rows of their own, as long as these are.
struct PackedNoise {
  at::Tensor number;  // [batch * length] i64: example * length + position in it; undefined in rows that are not packed
  // Noise of whole examples is drawn for numbers first_example, ..., up to `longest` positions of each; token t has
  // that of row place[t] of [num_examples * longest].
  int64_t first_example = 0, num_examples = 0, longest = 0;
  at::Tensor place;  // [batch * length] i64
};
PackedNoise packed_noise(const TokenLayout& tokens);

// targets [batch, length] i64 shifted right: pad_id 0 first, -100 becomes 0 (T5's decoder inputs). With `segment`, as
// in TokenLayout, every example begins with 0, and padding is 0.
at::Tensor shift_right(const at::Tensor& targets, const at::Tensor& segment = {});

}  // namespace switchyard
