// Matrices of small integers with scales, and products of rows with them, for inference.
//
// A quantised row of `inner` values lies as bytes, its scales behind its values, so that rows can be cut, joined and
// stacked like those of any matrix:
//   int8  inner bytes q, then an f32 scale                            value = scale q, |q| <= 127
//   int4  for each 64 values 32 bytes, byte j with q_j + 8 in its low and q_(j+32) + 8 in its high half, then one bf16
//         scale for each 64 values                                    value = scale q, -8 <= q <= 7
#pragma once

#include <cstdint>
#include <span>

#include "kernels/bfloat16.h"
#include "kernels/product.h"

namespace switchyard::kernels {

enum class QuantizedForm { kInt8, kInt4 };

inline constexpr int64_t kQuantizedGroup = 64;  // `inner` is a multiple of it

constexpr int64_t quantized_row_bytes(QuantizedForm form, int64_t inner) {
  return form == QuantizedForm::kInt8 ? inner + 4 : inner / 2 + inner / kQuantizedGroup * 2;
}

// rows [count, inner] to bytes [count, quantized_row_bytes]. int8: the largest magnitude of a row becomes 127. int4:
// that of a group of 64 becomes -8. Values that are not finite make a scale that is not.
void quantize_rows(QuantizedForm form, const float* rows, int64_t count, int64_t inner, uint8_t* to);
void dequantize_rows(QuantizedForm form, const uint8_t* rows, int64_t count, int64_t inner, float* to);

// The product of kernels/product.h with a transposed matrix in a quantised form, [matrices][columns] rows of bytes. The
// operand is BFloat16.
//
// Up to kFewRows rows of a matrix meet its integers at the speed of memory, each as 16-bit integers with a scale of its
// own (an error of 2^-16 of its largest element); sums of integers are exact, so that a row's result does not depend on
// others. More rows, or all with packs_few, meet the values rounded to bf16.
template <class C>
struct QuantizedProduct {
  const BFloat16* a;                  // [rows, inner], the matrices' runs one after the other
  const uint8_t* b;                   // [matrices, columns, quantized_row_bytes]
  C* c;                               // [rows, columns], float or BFloat16
  std::span<const int64_t> num_rows;  // [matrices]
  int64_t inner;                      // a multiple of 64
  int64_t columns;                    // any number
  QuantizedForm form;
  Epilogue epilogue = Epilogue::kStore;
  bool packs_few = false;
};

template <class C>
void multiply(const QuantizedProduct<C>& product);

// A thread's part of a product of up to kFewRows rows with one matrix: the rows as integers, and columns [begin, end)
// of c by them, with the bits of multiply(). values [rows, inner], scales [rows].
void to_integers(const BFloat16* rows, int64_t count, int64_t inner, int16_t* values, float* scales);
struct IntegerRows {
  const int16_t* values;
  const float* scales;
  int64_t count;
};
template <class C>
void multiply_columns(const QuantizedProduct<C>& product, const IntegerRows& rows, int64_t begin, int64_t end);

}  // namespace switchyard::kernels
