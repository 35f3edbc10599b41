#include "kernels/decoder_block.h"

#include <algorithm>

#include "kernels/lanes.h"
#include "kernels/product.h"
#include "kernels/rms_norm.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kBlock = 64;  // columns that threads share out

// The matrix of expert `number`, where `first` is that of expert 0.
template <class T>
StepMatrix expert_matrix(const StepMatrix& first, int64_t number) {
  auto matrix = first;
  if (first.data != nullptr)
    matrix.data = static_cast<const char*>(first.data) + number * first.bytes(static_cast<int64_t>(sizeof(T)));
  return matrix;
}

}  // namespace

template <class T>
StepMemory<T>::StepMemory(const StepShape& most, int threads)
    : x(most.rows * most.d_model),
      projected(most.rows * 3 * most.width()),
      mixed(most.rows * most.width()),
      a(std::max(most.rows, most.expert_rows) * most.d_ff),
      b(std::max(most.rows, most.expert_rows) * most.d_ff),
      delta(std::max(most.rows, most.expert_rows) * most.d_model),
      normed_size((most.rows + most.expert_rows) * most.d_model),
      integers_size(kFewRows * std::max({most.d_model, most.width(), most.d_ff})),
      normed(normed_size * threads),
      integers(integers_size * threads) {}

template <class T>
StepThread<T>::StepThread(const StepShape& shape, StepMemory<T>& memory, int thread, int threads)
    : shape_(shape),
      memory_(memory),
      thread_(thread),
      threads_(threads),
      normed_(memory.normed.data() + thread * memory.normed_size),
      integers_(memory.integers.data() + thread * memory.integers_size) {}

// Where part `part` of the threads' shares of so many columns begins.
template <class T>
int64_t StepThread<T>::share(int64_t columns, int part) const {
  return columns / kBlock * part / threads_ * kBlock;
}

// Each thread for itself: it costs less than a wait.
template <class T>
void StepThread<T>::normalise(const float* scale, T* to) {
  for (int64_t row = 0; row < shape_.rows; ++row)
    rms_norm(memory_.x.data() + row * shape_.d_model, scale, to + row * shape_.d_model, 1, shape_.d_model,
             shape_.epsilon);
}

template <class T>
void StepThread<T>::prepare(const T* rows, int64_t count, const StepMatrix& matrix) {
  if constexpr (sizeof(T) == sizeof(BFloat16))
    if (matrix.form) to_integers(rows, count, matrix.inner, integers_, scales_);
}

template <class T>
void StepThread<T>::multiply(const T* rows, int64_t count, const StepMatrix& matrix, Epilogue epilogue, T* to,
                             int64_t begin, int64_t end) {
  if constexpr (sizeof(T) == sizeof(BFloat16)) {
    if (matrix.form)
      return multiply_columns<T>({.a = rows,
                                  .b = static_cast<const uint8_t*>(matrix.data),
                                  .c = to,
                                  .num_rows = {&count, 1},
                                  .inner = matrix.inner,
                                  .columns = matrix.columns,
                                  .form = *matrix.form,
                                  .epilogue = epilogue},
                                 {integers_, scales_, count}, begin, end);
  }
  multiply_columns<T>({.a = rows,
                       .b = static_cast<const T*>(matrix.data),
                       .c = to,
                       .num_rows = {&count, 1},
                       .inner = matrix.inner,
                       .columns = matrix.columns,
                       .transposed = true,
                       .epilogue = epilogue},
                      begin, end);
}

// x += rows matrix^T; nobody reads x or `rows` any more, and all do when this returns.
template <class T>
void StepThread<T>::add_product(const T* rows, const StepMatrix& matrix) {
  const int64_t begin = share(matrix.columns, thread_), end = share(matrix.columns, thread_ + 1);
  T* delta = memory_.delta.data();
  prepare(rows, shape_.rows, matrix);
  multiply(rows, shape_.rows, matrix, Epilogue::kStore, delta, begin, end);
  for (int64_t row = 0; row < shape_.rows; ++row)
    for (int64_t column = begin; column < end; ++column)
      memory_.x.data()[row * matrix.columns + column] += to_float(delta[row * matrix.columns + column]);
  wait();
}

// Each thread has heads of its own from the projections to the mixture of their values.
template <class T>
void StepThread<T>::attention(const StepAttention<T>& layer) {
  const int64_t width = shape_.width(), d_kv = shape_.d_kv, columns = layer.in.columns;
  const int64_t first = shape_.num_heads * thread_ / threads_, last = shape_.num_heads * (thread_ + 1) / threads_;
  const int64_t begin = first * d_kv, count = (last - first) * d_kv;
  T* projected = memory_.projected.data();
  normalise(layer.norm, normed_);
  prepare(normed_, shape_.rows, layer.in);
  for (int64_t part = 0; part < columns; part += width)
    multiply(normed_, shape_.rows, layer.in, Epilogue::kStore, projected, part + begin, part + begin + count);
  if (columns > width)
    for (int64_t row = 0; row < shape_.rows; ++row) {
      const int64_t place = (layer.slot[row] * layer.key_length + layer.num_keys[row] - 1) * width + begin;
      const T* own = projected + row * columns + begin;
      std::copy_n(own + width, count, layer.keys + place);
      std::copy_n(own + 2 * width, count, layer.values + place);
    }
  const AttentionArguments<T> arguments{.batch = shape_.rows,
                                        .num_heads = shape_.num_heads,
                                        .query_length = 1,
                                        .key_length = layer.key_length,
                                        .d_kv = d_kv,
                                        .q = {projected, columns, columns},
                                        .k = {layer.keys, layer.key_length * width, width},
                                        .v = {layer.values, layer.key_length * width, width},
                                        .bias = layer.bias,
                                        .key_mask = layer.mask};
  if (first < last)
    for (int64_t row = 0; row < shape_.rows; ++row)
      attention_decode_heads(arguments, {memory_.mixed.data(), width, width}, {layer.slot, layer.num_keys}, row, first,
                             last);
  wait();
  add_product(memory_.mixed.data(), layer.out);
}

// This thread's columns of the hidden layer, to a.
template <class T>
void StepThread<T>::hidden(const StepFeedForward& layer, const StepMatrix& wi, const StepMatrix& wi_1, const T* rows,
                           int64_t count, T* a, T* b) {
  const bool is_plain_relu = layer.activation == Activation::kRelu && wi_1.data == nullptr;
  const int64_t begin = share(wi.columns, thread_), end = share(wi.columns, thread_ + 1);
  prepare(rows, count, wi);
  multiply(rows, count, wi, is_plain_relu ? Epilogue::kRelu : Epilogue::kStore, a, begin, end);
  if (wi_1.data != nullptr) {
    prepare(rows, count, wi_1);
    multiply(rows, count, wi_1, Epilogue::kStore, b, begin, end);
  }
  if (is_plain_relu || begin == end) return;
  for (int64_t row = 0; row < count; ++row) {
    T* own = a + row * wi.columns + begin;
    hidden_layer(layer.activation, own, wi_1.data != nullptr ? b + row * wi.columns + begin : nullptr, {}, 1,
                 end - begin, own);
  }
}

template <class T>
void StepThread<T>::feed_forward(const float* norm, const StepFeedForward& layer) {
  normalise(norm, normed_);
  hidden(layer, layer.wi, layer.wi_1, normed_, shape_.rows, memory_.a.data(), memory_.b.data());
  wait();
  add_product(memory_.a.data(), layer.wo);
}

template <class T>
void StepThread<T>::experts(const float* norm, const StepFeedForward& layer, const StepRows& rows, int64_t begin,
                            int64_t end, int64_t first) {
  const int64_t d_model = shape_.d_model, d_ff = layer.wi.columns;
  T* gathered = normed_ + shape_.rows * d_model;
  normalise(norm, normed_);
  for (const bool is_second : {false, true}) {
    int64_t row = first;
    for (int64_t expert = begin; expert < end; ++expert) {
      const int64_t count = rows.num_rows[static_cast<size_t>(expert)];
      if (count == 0) continue;
      T* a = memory_.a.data() + row * d_ff;
      if (is_second) {
        const auto wo = expert_matrix<T>(layer.wo, expert);
        prepare(a, count, wo);
        multiply(a, count, wo, Epilogue::kStore, memory_.delta.data() + row * d_model, share(d_model, thread_),
                 share(d_model, thread_ + 1));
      } else {
        for (int64_t n = 0; n < count; ++n)
          std::copy_n(normed_ + rows.token[static_cast<size_t>(row + n)] * d_model, d_model, gathered + n * d_model);
        hidden(layer, expert_matrix<T>(layer.wi, expert), expert_matrix<T>(layer.wi_1, expert), gathered, count, a,
               memory_.b.data() + row * d_ff);
      }
      row += count;
    }
    wait();
  }
}

template <class T>
void StepThread<T>::combine(const StepRows& rows) {
  const int64_t d_model = shape_.d_model, begin = share(d_model, thread_), end = share(d_model, thread_ + 1);
  for (int64_t token = 0; token < shape_.rows; ++token) {
    float* x = memory_.x.data() + token * d_model;
    for (int64_t column = begin; column < end; column += kLanes) {
      F32x16 sum = splat(0.0F);
      bool is_first = true;
      for (size_t row = 0; row < rows.token.size(); ++row) {
        if (rows.token[row] != token) continue;
        const F32x16 value = load(memory_.delta.data() + static_cast<int64_t>(row) * d_model + column);
        const F32x16 gate = splat(rows.gate[row]);
        sum = is_first ? value * gate : fma(value, gate, sum);
        is_first = false;
      }
      T rounded[kLanes];
      store(rounded, sum);
      store(x + column, load(x + column) + load(rounded));
    }
  }
  wait();
}

template struct StepMemory<float>;
template struct StepMemory<BFloat16>;
template class StepThread<float>;
template class StepThread<BFloat16>;

}  // namespace switchyard::kernels
