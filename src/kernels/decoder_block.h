// Decoding one token of each of a few rows: what the threads of one region do in a decoder block, layer by layer, with
// their outputs' columns shared out and one wait where a layer needs another's whole output.
//
// T is the dtype of products and of what lies between them, float or BFloat16; the residual stream is f32. Every number
// is rounded where the operations of ops/ round it, so that both give the same bits.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "kernels/attention.h"
#include "kernels/hidden_layer.h"
#include "kernels/quantized.h"
#include "kernels/scratch.h"
#include "kernels/team.h"

namespace switchyard::kernels {

// [columns, inner] of T, or quantised rows where T is BFloat16; both multiples of 64.
struct StepMatrix {
  const void* data = nullptr;  // null: absent
  int64_t columns = 0, inner = 0;
  std::optional<QuantizedForm> form = {};

  int64_t bytes(int64_t size) const {  // of elements of `size` bytes
    return columns * (form ? quantized_row_bytes(*form, inner) : inner * size);
  }
};

template <class T>
struct StepAttention {
  const float* norm = nullptr;           // [d_model]
  StepMatrix in;                         // self: [3 * width, d_model]; of the encoder: [width, d_model]
  StepMatrix out;                        // [d_model, width]
  T *keys = nullptr, *values = nullptr;  // [slots, key_length, width]; self: the token's own are written there
  int64_t key_length = 0;
  const float* bias = nullptr;        // [num_heads, key_length] by distance, a row's keys the last ones; null: none
  const bool* mask = nullptr;         // [slots, key_length]; null: all keys are seen
  const int64_t* slot = nullptr;      // [rows]
  const int64_t* num_keys = nullptr;  // [rows], the new one included
};

struct StepFeedForward {
  Activation activation = Activation::kRelu;
  StepMatrix wi, wi_1, wo;  // of one network, or of the first of a layer's experts, which lie one behind the other
};

// Rows that wait at experts: those of expert e are the next num_rows[e], each at most once there.
struct StepRows {
  std::span<const int64_t> token;     // [rows]
  std::span<const float> gate;        // [rows]
  std::span<const int64_t> num_rows;  // [num_experts]
};

struct StepShape {
  int64_t rows = 0;  // at most kFewRows
  int64_t d_model = 0, num_heads = 0, d_kv = 0, d_ff = 0;
  int64_t expert_rows = 0;  // rows at experts at most
  float epsilon = 0.0F;
  int64_t width() const { return num_heads * d_kv; }
};

// Memory of a step, taken once. Threads share what crosses a wait; the rest each has for itself.
template <class T>
struct StepMemory {
  StepMemory(const StepShape& most, int threads);

  Scratch<float> x;      // [rows, d_model]: the residual stream
  Scratch<T> projected;  // [rows, 3 * width]
  Scratch<T> mixed;      // [rows, width]
  Scratch<T> a, b;       // [rows or expert_rows, d_ff]
  Scratch<T> delta;      // [rows or expert_rows, d_model]

  int64_t normed_size, integers_size;
  Scratch<T> normed;          // [threads][rows or expert_rows, d_model]
  Scratch<int16_t> integers;  // [threads][rows or expert_rows, the longest inner]
  Team team;
};

// One thread's view of a step, within a parallel region. All threads of it call the same functions in the same order.
template <class T>
class StepThread {
 public:
  StepThread(const StepShape& shape, StepMemory<T>& memory, int thread, int threads);

  // x += attention(norm(x)). Self: in.columns is 3 * width.
  void attention(const StepAttention<T>& layer);
  // x += feed_forward(norm(x))
  void feed_forward(const float* norm, const StepFeedForward& layer);
  // The rows [first, first + count) of `rows`, which are those of experts [begin, end), to memory.delta.
  void experts(const float* norm, const StepFeedForward& layer, const StepRows& rows, int64_t begin, int64_t end,
               int64_t first);
  // x += the sum of each token's rows in memory.delta, times their gates, in their order.
  void combine(const StepRows& rows);

 private:
  void normalise(const float* scale, T* to);
  // Makes rows integers, if the matrix is quantised; then columns [begin, end) of their product with it.
  void prepare(const T* rows, int64_t count, const StepMatrix& matrix);
  void multiply(const T* rows, int64_t count, const StepMatrix& matrix, Epilogue epilogue, T* to, int64_t begin,
                int64_t end);
  void hidden(const StepFeedForward& layer, const StepMatrix& wi, const StepMatrix& wi_1, const T* rows, int64_t count,
              T* a, T* b);
  void add_product(const T* rows, const StepMatrix& matrix);
  int64_t share(int64_t columns, int part) const;
  void wait() { memory_.team.wait(threads_); }

  const StepShape& shape_;
  StepMemory<T>& memory_;
  int thread_, threads_;
  T* normed_;
  int16_t* integers_;
  float scales_[kFewRows];
};

}  // namespace switchyard::kernels
