// What the forward and the backward attention kernels share: padded buffers, the rows of one head, and the bias table
// with the causal mask folded in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <numbers>

#include "kernels/attention.h"
#include "kernels/lanes.h"
#include "kernels/pack.h"
#include "kernels/scratch.h"

namespace switchyard::kernels {

inline constexpr int64_t kBlock = 64;    // rows of a tile, and columns: brgemm's widest panel
inline constexpr int64_t kPadding = 32;  // keeps row strides off the powers of two, whose rows would share cache sets
inline constexpr float kLog2e = std::numbers::log2e_v<float>;
// Added to a score that does not count. Finite, because exponentials of infinities would cost instructions; kHidden -
// kUnseen and kHidden + any score still give exactly 0.
inline constexpr float kHidden = -1e30f;
// The least maximum of a row of scores: that of a query which sees no key, whose log2_sum_exp is -kHidden.
inline constexpr float kUnseen = -1e20f;

// A thread's scratch memory: aligned, kept between calls, growing only. Contents are undefined after reserve().
template <class T>
class Buffer {
 public:
  T* reserve(int64_t size) {
    if (size > size_) {
      data_.reset(static_cast<T*>(::operator new (sizeof(T) * size, std::align_val_t{64})));
      size_ = size;
    }
    return data_.get();
  }
  T* data() { return data_.get(); }

 private:
  struct Free {
    void operator()(T* data) const { ::operator delete (data, std::align_val_t{64}); }
  };
  std::unique_ptr<T, Free> data_;
  int64_t size_ = 0;
};

// Whether a call is worth the other threads: below about a million multiplications, waking them costs as much as the
// work.
template <class T>
bool worth_threads(const AttentionArguments<T>& arguments) {
  return arguments.batch * arguments.num_heads * arguments.query_length * arguments.key_length * arguments.d_kv >
         500'000;
}

// Where (batch, head) begins.
template <class T>
T* head_rows(const Rows<T>& rows, int64_t batch, int64_t head, int64_t d_kv) {
  return rows.data + batch * rows.batch_stride + head * d_kv;
}

// Rows `first` and on of one (batch, head), as an array of their own.
template <class T>
Rows<T> part_of(const Rows<T>& rows, int64_t batch, int64_t head, int64_t d_kv, int64_t first) {
  return {head_rows(rows, batch, head, d_kv) + first * rows.row_stride, 0, rows.row_stride};
}

// Where a run's distances begin among those of its row.
template <class T>
int64_t first_distance(const AttentionArguments<T>& arguments, const AttentionRun& run) {
  return arguments.query_length - run.num_queries + run.first_key - run.first_query;
}

// A run of one (batch, head) as a call of its own, of one batch row and one head.
template <class T>
AttentionArguments<T> arguments_of(const AttentionArguments<T>& arguments, int64_t batch, int64_t head,
                                   const AttentionRun& run) {
  const int64_t distances = arguments.query_length + arguments.key_length - 1, d_kv = arguments.d_kv;
  return {
      .batch = 1,
      .num_heads = 1,
      .query_length = run.num_queries,
      .key_length = run.num_keys,
      .d_kv = d_kv,
      .causal = arguments.causal,
      .query_offset = arguments.query_offset + run.first_query - run.first_key,
      .q = part_of(arguments.q, batch, head, d_kv, run.first_query),
      .k = part_of(arguments.k, batch, head, d_kv, run.first_key),
      .v = part_of(arguments.v, batch, head, d_kv, run.first_key),
      .bias = arguments.bias == nullptr ? nullptr : arguments.bias + head * distances + first_distance(arguments, run)};
}

// Copies `count` rows of d_kv elements to [padded_count][width], zeros elsewhere. width is a multiple of 32.
template <class T>
void copy_rows(const T* from, int64_t row_stride, int64_t count, int64_t d_kv, T* to, int64_t padded_count,
               int64_t width) {
  constexpr int64_t kPiece = 64 / sizeof(T);  // of constant size, so that copying is a vector and not a call
  for (int64_t row = 0; row < count; ++row) {
    T* to_row = to + row * width;
    const T* from_row = from + row * row_stride;
    int64_t i = 0;
    for (; i + kPiece <= d_kv; i += kPiece) std::memcpy(to_row + i, from_row + i, sizeof(T) * kPiece);
    if (i < width) {
      std::memset(to_row + i, 0, sizeof(T) * (width - i));
      std::memcpy(to_row + i, from_row + i, sizeof(T) * (d_kv - i));
    }
  }
  std::memset(to + count * width, 0, sizeof(T) * (padded_count - count) * width);
}

// to[0, size) = scale * from[0, size).
template <class T>
void store_scaled(const float* from, float scale, T* to, int64_t size) {
  const F32x16 factor = splat(scale);
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) store(to + i, load(from + i) * factor);
  if (i < size) {
    alignas(64) float rest[kLanes] = {};
    T rounded[kLanes];
    std::copy(from + i, from + size, rest);
    store(rounded, load(rest) * factor);
    std::copy_n(rounded, size - i, to + i);
  }
}

// Sum of a[i] b[i] in f32.
template <class T>
float dot(const T* a, const T* b, int64_t size) {
  F32x16 sum = splat(0.0f);
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) sum = fma(load(a + i), load(b + i), sum);
  float rest = 0.0f;
  for (; i < size; ++i) rest += to_float(a[i]) * to_float(b[i]);
  return reduce_add(sum) + rest;
}

// Keys of this batch row up to the last one that may be attended.
template <class T>
int64_t used_keys(const AttentionArguments<T>& arguments, int64_t batch) {
  if (arguments.key_mask == nullptr) return arguments.key_length;
  const bool* mask = arguments.key_mask + batch * arguments.key_length;
  int64_t used = arguments.key_length;
  while (used > 0 && !mask[used - 1]) --used;
  return used;
}

// What distance entry e = key - query + query_length - 1 adds to a score, in units of log2: the bias, or kHidden for a
// future key.
template <class T>
float distance_term(const AttentionArguments<T>& arguments, int64_t head, int64_t entry) {
  const int64_t distances = arguments.query_length + arguments.key_length - 1;
  if (arguments.causal && entry - (arguments.query_length - 1) > arguments.query_offset) return kHidden;
  return arguments.bias == nullptr ? 0.0f : std::max(arguments.bias[head * distances + entry] * kLog2e, kHidden);
}

// The terms of all distances, entry 0 first, or the last first if `descending`: then they ascend with the query. 64
// zeros lie on either side, for the padded rows and columns of a tile.
template <class T>
float* distance_terms(const AttentionArguments<T>& arguments, int64_t head, bool descending, Buffer<float>& buffer) {
  const int64_t distances = arguments.query_length + arguments.key_length - 1;
  float* terms = buffer.reserve(distances + 2 * kBlock) + kBlock;
  std::fill(terms - kBlock, terms, 0.0f);
  for (int64_t entry = 0; entry < distances; ++entry)
    terms[descending ? distances - 1 - entry : entry] = distance_term(arguments, head, entry);
  std::fill(terms + distances, terms + distances + kBlock, 0.0f);
  return terms;
}

}  // namespace switchyard::kernels
