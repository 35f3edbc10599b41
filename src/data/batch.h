// One batch of token ids, as the model reads it; no tensors here.
#pragma once

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
  std::vector<int32_t> part = {};  // [batch_size]: which part of a mixture a row is of; empty where there is none
};

}  // namespace switchyard
