// Passes over the residual stream and over whole rows: adding a sublayer's output, dropping channels, summing rows.
// T is float or BFloat16; everything contiguous.
#pragma once

#include <cstdint>

#include "kernels/bfloat16.h"
#include "kernels/noise.h"

namespace switchyard::kernels {

// y = x + delta, `size` elements.
template <class T>
void add_to_stream(const float* x, const T* delta, float* y, int64_t size);

// y = x * dropout factors of the row, [rows, width], width a multiple of 16.
template <class T>
void drop_channels(const T* x, const RowDropout& dropout, T* y, int64_t rows, int64_t width);

// table[ids[row]] += grad[row] for every row in order, [rows, width] into [..., width]; f32.
void scatter_add_rows(const float* grad, const int64_t* ids, float* table, int64_t rows, int64_t width);

}  // namespace switchyard::kernels
