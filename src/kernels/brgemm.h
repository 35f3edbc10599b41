// Small matrix products on packed operands: ATen's brgemm (oneDNN's generated kernels) behind plain pointers. brgemm.cc
// is the only unit that sees ATen's internal header.
//
// Kernels are generated once per thread and shape, which takes a fraction of a millisecond: use few shapes, and keep
// lengths that change at every call (a growing cache) away from m, n and k.
#pragma once

#include <cstdint>

#include "kernels/bfloat16.h"

namespace switchyard::kernels {

// Whether brgemm runs on this processor for the operand type; probed once, by a product whose result is checked.
bool brgemm_available_bf16();
bool brgemm_available_f32();

// C = A B, or C += A B if add. a [m, k] with row stride lda; c [m, n] f32 with row stride ldc; sums in f32, the same
// for a row whatever m is. b for bf16: pairs of rows interleaved, [k/2][ldb][2], k even, of which the first n columns
// are used; for f32: [k][ldb]. Panels of n = 64 (packed weights: [n/64][k/2][64][2]) are fastest.
void brgemm(int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb, int64_t ldc, bool add, const BFloat16* a,
            const BFloat16* b, float* c);
void brgemm(int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb, int64_t ldc, bool add, const float* a,
            const float* b, float* c);

// Gives back the thread's tile configuration, which processors with AMX need at the end of a parallel region.
void brgemm_release();

}  // namespace switchyard::kernels
