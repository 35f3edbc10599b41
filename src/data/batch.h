// One batch of token ids, as the model reads it; no tensors here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace switchyard {

struct Batch {
  int64_t batch_size = 0;
  int64_t encoder_length = 0;
  int64_t decoder_length = 0;
  int64_t first_example = 0;                        // number of row 0 in the step's global batch: keys the noise
  std::vector<int32_t> encoder_input_tokens = {};   // [batch_size, encoder_length]; pad_id 0 is padding
  std::vector<int32_t> decoder_target_tokens = {};  // [batch_size, decoder_length]; pad_id 0 carries no loss
  // Of packed rows, which hold several examples one behind the other; empty where a row is one example. Segments: the
  // example within its row that a position belongs to, counted from 1; 0 is padding. row_example: the number in the
  // step of each row's first example, and at its end the number of the example after the last row.
  std::vector<int32_t> encoder_segment = {};  // [batch_size, encoder_length]
  std::vector<int32_t> decoder_segment = {};  // [batch_size, decoder_length]
  std::vector<int64_t> row_example = {};      // [batch_size + 1]
  std::vector<int32_t> part = {};  // [num_examples()]: which part of a mixture it is of; empty where there is none

  bool is_packed() const { return !row_example.empty(); }
  int64_t num_examples() const { return is_packed() ? row_example.back() - row_example.front() : batch_size; }
  // Number of a row's first example among num_examples(); of the row behind the last, num_examples().
  size_t first_example_of(int64_t row) const {
    return static_cast<size_t>(is_packed() ? row_example[static_cast<size_t>(row)] - row_example.front() : row);
  }
};

}  // namespace switchyard
