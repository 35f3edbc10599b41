// The numbers of base/random.h a row at a time, to the bit those of NoiseStream.
#pragma once

#include <array>
#include <cstdint>

#include "base/random.h"
#include "kernels/bfloat16.h"

namespace switchyard::kernels {

using StreamKey = std::array<uint32_t, 2>;  // stream_key() of a NoiseKey

// Uniforms first, ..., first + width - 1 of subsequence `row`, first a multiple of 64; `to` has room for width rounded
// up to a multiple of 64.
void fill_uniform(const StreamKey& key, uint64_t row, int64_t width, float* to, int64_t first = 0);

// A factor for each element of a row: U(1 - spread, 1 + spread), or with a rate > 0 dropout's 0 or 1 / (1 - rate).
struct ElementNoise {
  float spread = 0.0f;
  float rate = 0.0f;
};

// y[row] = x[row] * factors, from subsequence numbers[row], or first_row + row without a list. x, y [rows, width].
// X and Y are float or BFloat16, not both BFloat16.
template <class X, class Y>
void multiply_noise(const StreamKey& key, uint64_t first_row, const int64_t* numbers, const X* x, Y* y, int64_t rows,
                    int64_t width, const ElementNoise& noise);

// Dropout: which subsequence each row draws from. Row r has number numbers[r], or r / rows_per_number without a list.
struct RowDropout {
  float rate = 0.0f;
  StreamKey key{};
  int64_t first_number = 0;
  int64_t rows_per_number = 1;
  const int64_t* numbers = nullptr;
  int64_t first_column = 0;  // of the subsequence, where a row's first element is not its first: a multiple of 64

  uint64_t number(int64_t row) const {
    return static_cast<uint64_t>(first_number + (numbers != nullptr ? numbers[row] : row / rows_per_number));
  }
};

// One row's dropout factors: 0 or 1 / (1 - rate). Remembers the last row, so that rows that share a number cost one
// fill.
class DropoutRow {
 public:
  DropoutRow(const RowDropout& dropout, int64_t width, float* buffer)
      : dropout_(dropout), width_(width), buffer_(buffer) {}
  // `width` factors, or null if the rate is 0. `buffer` has room for width rounded up to a multiple of 64.
  const float* factors(int64_t row);

 private:
  const RowDropout& dropout_;
  int64_t width_;
  float* buffer_;
  bool filled_ = false;
  uint64_t number_ = 0;
};

}  // namespace switchyard::kernels
