// Moving rows between token order and expert order. `token` lists each row's token; a token may have several rows.
// T is float or BFloat16; rows [rows, width] and tokens [tokens, width] contiguous, width a multiple of 16.
#pragma once

#include <cstdint>

#include "kernels/bfloat16.h"

namespace switchyard::kernels {

// to[row] = from[token[row]].
template <class T>
void dispatch_rows(const T* from, const int64_t* token, T* to, int64_t rows, int64_t width);

// The rows of each token: those of token t are row[first[t]] to row[first[t + 1] - 1].
struct RowsOfTokens {
  const int64_t* first;
  const int64_t* row;
};

// to[t] = sum over the rows of token t, in their order, of gate[row] * from[row], in f32; gate null: 1. 0 for a token
// without a row.
template <class T>
void combine_rows(const T* from, const float* gate, const RowsOfTokens& rows, T* to, int64_t tokens, int64_t width);

// The gradients of combine_rows with a gate: grad_from[row] = gate[row] * grad_to[token[row]], and grad_gate[row] is
// the product of grad_to[token[row]] and from[row].
template <class T>
void combine_rows_backward(const T* grad_to, const T* from, const float* gate, const int64_t* token, T* grad_from,
                           float* grad_gate, int64_t rows, int64_t width);

}  // namespace switchyard::kernels
