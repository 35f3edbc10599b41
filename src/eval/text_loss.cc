#include "eval/text_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>

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

void add_parts(const Batch& batch, int64_t first, const at::Tensor& token_losses, std::vector<PartResult>& parts) {
  if (batch.part.empty()) return;
  const auto losses = token_losses.to(at::kCPU, at::kDouble).view({-1, batch.decoder_length}).sum(1);
  for (int64_t n = 0; n < losses.size(0); ++n) {
    const int64_t row = first + n;
    const auto part = static_cast<size_t>(batch.part[static_cast<size_t>(row)]);
    if (parts.size() <= part) parts.resize(part + 1);
    const auto real = [&](const std::vector<int32_t>& ids, int64_t length) {
      const auto begin = ids.begin() + row * length;
      return static_cast<int64_t>(length - std::count(begin, begin + length, 0));
    };
    const int64_t labels = real(batch.decoder_target_tokens, batch.decoder_length);
    ++parts[part].examples;
    parts[part].tokens += labels + real(batch.encoder_input_tokens, batch.encoder_length);
    parts[part].labels += labels;
    parts[part].loss += losses[n].item<double>();
  }
}

}  // namespace switchyard
