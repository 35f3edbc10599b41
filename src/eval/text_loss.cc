#include "eval/text_loss.h"

#include <ATen/ops/empty.h>

namespace switchyard {
namespace {

// Rows [first, first + rows), masked where they are padding; without a mask if nothing is.
TokenLayout widen(const std::vector<int32_t>& tokens, int64_t first, int64_t rows, int64_t length) {
  TokenLayout result{at::empty({rows, length}, at::kLong), at::empty({rows, length}, at::kBool)};
  int64_t* ids = result.ids.mutable_data_ptr<int64_t>();
  bool* mask = result.mask.mutable_data_ptr<bool>();
  bool padded = false;
  for (int64_t n = 0; n < rows * length; ++n) {
    ids[n] = tokens[static_cast<size_t>(first * length + n)];
    mask[n] = ids[n] != 0;
    padded |= ids[n] == 0;
  }
  if (!padded) result.mask = at::Tensor();
  return result;
}

}  // namespace

LossInput to_tensors(const Batch& batch, int64_t first, int64_t count, at::Device device) {
  const TokenLayout encoder = widen(batch.encoder_input_tokens, first, count, batch.encoder_length);
  const TokenLayout decoder = widen(batch.decoder_target_tokens, first, count, batch.decoder_length);
  const auto labels = decoder.mask.defined() ? decoder.ids.masked_fill(decoder.mask.logical_not(), -100) : decoder.ids;
  const auto there = [&](const at::Tensor& tensor) { return tensor.defined() ? tensor.to(device) : tensor; };
  return {
      {there(encoder.ids), there(encoder.mask)}, {there(shift_right(decoder.ids)), there(decoder.mask)}, there(labels)};
}

}  // namespace switchyard
