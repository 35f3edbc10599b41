// Moving rows between token order and expert order. `token` lists each row's token, no token twice.
// T is float or BFloat16; rows [rows, width] and tokens [tokens, width] contiguous, width a multiple of 16.
#pragma once

#include <cstdint>

#include "kernels/bfloat16.h"

namespace switchyard::kernels {

// to[row] = from[token[row]].
template <class T>
void dispatch_rows(const T* from, const int64_t* token, T* to, int64_t rows, int64_t width);

// to[token[row]] = gate[row] * from[row], gate null: 1. Other tokens are not written.
template <class T>
void combine_rows(const T* from, const float* gate, const int64_t* token, T* to, int64_t rows, int64_t width);

// The gradients of combine_rows with a gate: grad_from[row] = gate[row] * grad_to[token[row]], and grad_gate[row] is
// the product of grad_to[token[row]] and from[row].
template <class T>
void combine_rows_backward(const T* grad_to, const T* from, const float* gate, const int64_t* token, T* grad_from,
                           float* grad_gate, int64_t rows, int64_t width);

}  // namespace switchyard::kernels
