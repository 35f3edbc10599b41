// Products of rows with matrices, each taking its own run of rows: the linear layers (one matrix) and the experts.
//
// T is float or BFloat16, sums in f32, the result in C: T, or float below bf16 operands. The matrix is packed panel by
// panel in cache as it is used, so that it is read once for up to a thousand rows; up to eight rows of a matrix stored
// transposed go without packing, at the speed of memory. A row's result depends neither on the number of threads nor
// on the other rows, except that the two ways add in different orders.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/bfloat16.h"

namespace switchyard::kernels {

// Rows of a matrix that go without packing. Decoding advances at most so many at a time.
inline constexpr int64_t kFewRows = 8;

// How far ahead of what they read few-row products ask for a matrix's memory: the processor's own prefetcher ends at
// each page of 4 KiB. Two threads read 50 in place of 31 GB/s (int8, 2 cores of a Xeon; 2 to 16 KiB are alike).
inline constexpr int64_t kPrefetchBytes = 8192;

enum class Epilogue { kStore, kRelu, kAdd };  // c = sum, c = max(sum, 0) with NaN staying, c += sum

template <class T, class C = T>
struct Product {
  const T* a;                         // [rows, inner], the matrices' runs one after the other
  const T* b;                         // [matrices] of [columns, inner] if transposed, else [inner, columns]
  C* c;                               // [rows, columns]
  std::span<const int64_t> num_rows;  // [matrices]
  int64_t inner;                      // a multiple of 64
  int64_t columns;                    // a multiple of 64, or any number if transposed
  bool transposed;
  Epilogue epilogue = Epilogue::kStore;
  bool packs_few = false;  // pack for up to kFewRows too: then a row's bits are the same among any number of rows
};

template <class T, class C>
void multiply(const Product<T, C>& product);

// A thread's part of a product of up to kFewRows rows with one transposed matrix: columns [begin, end) of all rows,
// with the bits of multiply().
template <class T>
void multiply_columns(const Product<T>& product, int64_t begin, int64_t end);

// The products of the columns, which are the gradients of the matrices: c[matrix] = grad^T rows over its run of
// rows.
template <class T>
struct ColumnProduct {
  const T* grad;                      // [rows, out]
  const T* rows;                      // [rows, in]
  T* c;                               // [matrices, out, in], 0 for a matrix without rows
  std::span<const int64_t> num_rows;  // [matrices]
  int64_t out, in;                    // multiples of 64
};

template <class T>
void multiply_columns(const ColumnProduct<T>& product);

}  // namespace switchyard::kernels
