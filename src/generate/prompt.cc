#include "generate/prompt.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "ops/backend.h"
#include "ops/product.h"

namespace switchyard {

constexpr size_t kPromptsAPass = 16;  // bounds the memory of the encoder

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

namespace {

// Prompts that pass the encoder in one batch have the bits that they have alone if every product treats rows alike:
// those of many rows in whole panels do, and attention of many queries.
bool may_share_a_pass(const ModelConfig& config, const ComputeWeights& weights, std::span<const int32_t> ids) {
  return static_cast<int64_t>(ids.size()) > ops::kFewRows && config.encoder_attention_sparse_step == 0 &&
         std::find(ids.begin(), ids.end(), 0) == ids.end() &&
         ops::is_fused(weights.output, ops::Kernel::kPanels,
                       {config.d_model, config.d_ff, config.inner_size(), config.routing.shared_expert_d_ff});
}

std::span<const int32_t> without_end_padding(std::span<const int32_t> ids) {
  while (!ids.empty() && ids.back() == 0) ids = ids.first(ids.size() - 1);
  return ids;
}

// Prompts of one length. [prompts, length, d_model]
at::Tensor encode_rows(const ModelConfig& config, const ComputeWeights& weights, const at::Tensor& ids,
                       const at::Tensor& mask, const RoutingListener& on_routing) {
  const auto& routing = config.routing;
  const ForwardOptions options{.drop_tokens = routing.group_size == 0 && routing.expert_capacity > 0,
                               .packs_few = true};
  const auto output = encode(config, weights, {ids, mask}, options);
  if (on_routing) on_routing(output.sparse_layers);
  return output.hidden;
}

}  // namespace

std::vector<EncodedPrompt> encode_prompts(const ModelConfig& config, const ComputeWeights& weights,
                                          const std::vector<std::span<const int32_t>>& prompts,
                                          const RoutingListener& on_routing) {
  const at::NoGradGuard no_grad;
  const auto device = weights.output.device();
  std::vector<EncodedPrompt> results(prompts.size());
  std::map<size_t, std::vector<size_t>> by_length;  // prompts that share passes
  for (size_t n = 0; n < prompts.size(); ++n) {
    const auto ids = without_end_padding(prompts[n]);
    if (may_share_a_pass(config, weights, ids)) {
      by_length[ids.size()].push_back(n);
      continue;
    }
    const auto row = row_tensor(ids, device);
    auto mask = row.ne(0);
    if (mask.all().item<bool>()) mask.reset();
    results[n] = {encode_rows(config, weights, row, mask, on_routing), mask};
  }
  for (const auto& [length, numbers] : by_length)
    for (size_t first = 0; first < numbers.size(); first += kPromptsAPass) {
      std::vector<at::Tensor> rows;
      for (size_t n = first; n < std::min(numbers.size(), first + kPromptsAPass); ++n)
        rows.push_back(row_tensor(without_end_padding(prompts[numbers[n]]), device));
      const auto hidden = encode_rows(config, weights, at::cat(rows), {}, on_routing);
      for (size_t n = 0; n < rows.size(); ++n)
        results[numbers[first + n]] = {hidden.narrow(0, static_cast<int64_t>(n), 1), {}};
    }
  return results;
}

EncodedPrompt encode_prompt(const ModelConfig& config, const ComputeWeights& weights, std::span<const int32_t> ids) {
  return encode_prompts(config, weights, {ids}).front();
}

}  // namespace switchyard
