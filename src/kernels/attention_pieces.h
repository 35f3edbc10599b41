// What the forward and the backward attention kernels share: padded buffers, the rows of one head, and the bias table with
// the causal mask folded in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <numbers>
#include <new>

#include "kernels/attention.h"
#include "kernels/lanes.h"
#include "kernels/pack.h"

namespace switchyard::kernels {

inline constexpr int64_t kBlock = 64;  // rows of a tile, and columns: brgemm's widest panel
inline constexpr float kLog2e = std::numbers::log2e_v<float>;
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A thread's scratch memory: aligned, kept between calls, growing only. Contents are undefined after reserve().
template <class T>
class Buffer {
 public:
  T* reserve(int64_t size) {
    if (size > size_) {
      data_.reset(static_cast<T*>(::operator new(sizeof(T) * size, std::align_val_t{64})));
      size_ = size;
    }
    return data_.get();
  }
  T* data() { return data_.get(); }

 private:
  struct Free {
    void operator()(T* data) const { ::operator delete(data, std::align_val_t{64}); }
  };
  std::unique_ptr<T, Free> data_;
  int64_t size_ = 0;
};

// Where (batch, head) begins.
template <class T>
T* head_rows(const Rows<T>& rows, int64_t batch, int64_t head, int64_t d_kv) {
  return rows.data + batch * rows.batch_stride + head * d_kv;
}

// Copies `count` rows of d_kv elements to [padded_count][width], zeros elsewhere.
template <class T>
void copy_rows(const T* from, int64_t row_stride, int64_t count, int64_t d_kv, T* to, int64_t padded_count, int64_t width) {
  for (int64_t row = 0; row < count; ++row) {
    std::memcpy(to + row * width, from + row * row_stride, sizeof(T) * d_kv);
    if (width > d_kv) std::memset(to + row * width + d_kv, 0, sizeof(T) * (width - d_kv));
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

// The score that distance entry e = key - query + query_length - 1 adds, in units of log2: the bias, or -inf for a future key.
template <class T>
float distance_term(const AttentionArguments<T>& arguments, int64_t head, int64_t entry) {
  const int64_t distances = arguments.query_length + arguments.key_length - 1;
  if (arguments.causal && entry - (arguments.query_length - 1) > arguments.query_offset) return -kInfinity;
  return arguments.bias == nullptr ? 0.0f : arguments.bias[head * distances + entry] * kLog2e;
}

}  // namespace switchyard::kernels
