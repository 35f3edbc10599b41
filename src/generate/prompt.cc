#include "generate/prompt.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/error.h"

namespace switchyard {

void check_ids(std::span<const int32_t> ids, int64_t vocab_size, const char* what) {
  for (const int32_t id : ids)
    SY_CHECK(id >= 0 && id < vocab_size, what, ": id ", id, " lies outside the model's vocabulary of ", vocab_size);
}

void check_prompt(std::span<const int32_t> ids, int64_t vocab_size) {
  SY_CHECK(std::any_of(ids.begin(), ids.end(), [](int32_t id) { return id != 0; }),
           "prompt is empty: expected at least one token that is not padding (id 0)");
  check_ids(ids, vocab_size, "prompt");
}

at::Tensor row_tensor(std::span<const int32_t> ids, at::Device device) {
  auto tensor = at::empty({1, static_cast<int64_t>(ids.size())}, at::kLong);
  std::copy(ids.begin(), ids.end(), tensor.mutable_data_ptr<int64_t>());
  return tensor.to(device);
}

EncodedPrompt encode_prompt(const ModelConfig& config, const ComputeWeights& weights, std::span<const int32_t> ids) {
  const at::NoGradGuard no_grad;
  while (!ids.empty() && ids.back() == 0) ids = ids.first(ids.size() - 1);
  const auto row = row_tensor(ids, weights.output.device());
  auto mask = row.ne(0);
  if (mask.all().item<bool>()) mask.reset();
  const auto& routing = config.routing;
  const ForwardOptions options{.drop_tokens = routing.group_size == 0 && routing.expert_capacity > 0};
  return {encode(config, weights, {row, mask}, options).hidden, mask};
}

}  // namespace switchyard
