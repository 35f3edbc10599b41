#include "eval/text_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

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

// The same of packed rows.
TokenLayout widen_packed(const std::vector<int32_t>& tokens, const std::vector<int32_t>& segments,
                         const std::vector<int64_t>& row_example, int64_t first, int64_t rows, int64_t length) {
  auto result = widen(tokens, first, rows, length);
  result.mask = at::empty({rows, length}, at::kBool);
  result.segment = at::empty_like(result.ids);
  result.example = at::empty_like(result.ids);
  for (int64_t n = 0; n < rows * length; ++n) {
    const int64_t segment = segments[static_cast<size_t>(first * length + n)];
    result.mask.mutable_data_ptr<bool>()[n] = segment != 0;
    result.segment.mutable_data_ptr<int64_t>()[n] = segment;
    result.example.mutable_data_ptr<int64_t>()[n] =
        row_example[static_cast<size_t>(first + n / length)] + std::max<int64_t>(segment - 1, 0);
  }
  return result;
}

TokenLayout there(const TokenLayout& tokens, at::Device device) {
  TokenLayout result = tokens;
  for (auto* tensor : {&result.ids, &result.mask, &result.segment, &result.example})
    if (tensor->defined()) *tensor = tensor->to(device);
  return result;
}

}  // namespace

LossInput to_tensors(const Batch& batch, int64_t first, int64_t count, at::Device device) {
  const auto stack = [&](const auto& tokens, const auto& segments, int64_t length) {
    return batch.is_packed() ? widen_packed(tokens, segments, batch.row_example, first, count, length)
                             : widen(tokens, first, count, length);
  };
  const auto encoder = stack(batch.encoder_input_tokens, batch.encoder_segment, batch.encoder_length);
  auto decoder = stack(batch.decoder_target_tokens, batch.decoder_segment, batch.decoder_length);
  const auto labels = decoder.mask.defined() ? decoder.ids.masked_fill(decoder.mask.logical_not(), -100) : decoder.ids;
  decoder.ids = shift_right(decoder.ids, decoder.segment);
  return {there(encoder, device), there(decoder, device), labels.to(device)};
}

void add_parts(const Batch& batch, int64_t first, const at::Tensor& token_losses, std::vector<PartResult>& parts) {
  if (batch.part.empty()) return;
  const auto losses = token_losses.to(at::kCPU, at::kDouble).contiguous();
  const auto* loss = losses.const_data_ptr<double>();
  const auto part_of = [&](size_t example) -> PartResult& {
    const auto part = static_cast<size_t>(batch.part[example]);
    if (parts.size() <= part) parts.resize(part + 1);
    return parts[part];
  };
  const int64_t end = first + losses.numel() / batch.decoder_length;
  for (size_t example = batch.first_example_of(first); example < batch.first_example_of(end); ++example)
    ++part_of(example).examples;
  const auto for_each_token = [&](const std::vector<int32_t>& ids, const std::vector<int32_t>& segments, int64_t length,
                                  auto&& take) {
    for (int64_t row = first; row < end; ++row)
      for (auto n = static_cast<size_t>(row * length); n < static_cast<size_t>((row + 1) * length); ++n)
        if (ids[n] != 0)
          take(part_of(batch.first_example_of(row) + (segments.empty() ? 0 : static_cast<size_t>(segments[n] - 1))), n);
  };
  for_each_token(batch.encoder_input_tokens, batch.encoder_segment, batch.encoder_length,
                 [](PartResult& part, size_t) { ++part.tokens; });
  for_each_token(batch.decoder_target_tokens, batch.decoder_segment, batch.decoder_length,
                 [&](PartResult& part, size_t position) {
                   ++part.tokens;
                   ++part.labels;
                   part.loss += loss[position - static_cast<size_t>(first * batch.decoder_length)];
                 });
}

}  // namespace switchyard
