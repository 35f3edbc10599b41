#include "model/token_layout.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/zeros_like.h>

#include <limits>

#include "base/error.h"

namespace switchyard {

void check_layout(const TokenLayout& tokens, const char* what) {
  const auto& [ids, mask, segment, example] = tokens;
  SY_CHECK(ids.defined() && ids.dim() == 2 && ids.scalar_type() == at::kLong && ids.numel() > 0, what,
           ": expected int64 ids [batch, length], got ", ids.defined() ? ids.toString() : "none", " ",
           ids.defined() ? ids.sizes() : at::IntArrayRef());
  SY_CHECK(!mask.defined() || (mask.sizes() == ids.sizes() && mask.scalar_type() == at::kBool), what,
           ": expected a bool mask of shape ", ids.sizes());
  if (!segment.defined() && !example.defined()) return;
  for (const auto* numbers : {&segment, &example})
    SY_CHECK(numbers->defined() && numbers->sizes() == ids.sizes() && numbers->scalar_type() == at::kLong, what,
             ": packed rows need int64 segments and examples of shape ", ids.sizes());
  SY_CHECK(mask.defined(), what, ": packed rows need a mask, true where segments are");
}

PackedNoise packed_noise(const TokenLayout& tokens) {
  if (!tokens.is_packed()) return {};
  const int64_t length = tokens.length();
  // Padding behind the last segment sorts last, and stands at position 0 of its example.
  const auto sorted = tokens.segment.masked_fill(tokens.mask.logical_not(), std::numeric_limits<int64_t>::max());
  const auto position = (at::arange(length, tokens.ids.options()) - at::searchsorted(sorted, sorted)) * tokens.mask;
  PackedNoise noise;
  noise.number = (tokens.example * length + position).view({-1});
  noise.first_example = tokens.example.min().item<int64_t>();
  noise.num_examples = tokens.example.max().item<int64_t>() - noise.first_example + 1;
  constexpr int64_t kMultiple = 16;  // widths that the kernels take
  noise.longest = (position.max().item<int64_t>() + kMultiple) / kMultiple * kMultiple;
  noise.place = ((tokens.example - noise.first_example) * noise.longest + position).view({-1});
  return noise;
}

at::Tensor shift_right(const at::Tensor& targets, const at::Tensor& segment) {
  auto inputs = at::zeros_like(targets);
  const int64_t last = targets.size(1) - 1;
  inputs.slice(1, 1).copy_(targets.slice(1, 0, last).clamp_min(0));
  if (segment.defined()) inputs.slice(1, 1).mul_(segment.slice(1, 1).eq(segment.slice(1, 0, last)));
  return inputs;
}

}  // namespace switchyard
