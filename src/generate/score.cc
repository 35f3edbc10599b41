#include "generate/score.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/logsumexp.h>

#include <numeric>

#include "base/error.h"
#include "generate/prompt.h"

namespace switchyard {

std::vector<Scored> score_targets(const ModelConfig& config, const ComputeWeights& weights,
                                  std::span<const int32_t> prompt, const std::vector<std::vector<int32_t>>& targets) {
  const at::NoGradGuard no_grad;
  check_prompt(prompt, config.vocab_size);
  for (const auto& target : targets) {
    check_ids(target, config.vocab_size, "target");
    SY_CHECK(!target.empty(), "target is empty");
  }
  const auto encoded = encode_prompt(config, weights, prompt);
  std::vector<Scored> results;
  for (const auto& target : targets) {
    const auto ids = row_tensor(target, weights.output.device());
    // No decoder mask: a target may hold id 0.
    const auto hidden =
        decode(config, weights, {shift_right(ids)}, encoded.hidden, encoded.mask, {.drop_tokens = false}).hidden;
    const auto logits = output_logits(weights, hidden.select(0, 0)).to(at::kDouble);  // [length, vocab]
    const auto of_targets = logits.gather(-1, ids.select(0, 0).unsqueeze(-1)).squeeze(-1);
    const at::Tensor log_probabilities = (of_targets - at::logsumexp(logits, -1)).to(at::kCPU).contiguous();
    const double* const values = log_probabilities.const_data_ptr<double>();
    Scored scored{0.0, {values, values + target.size()}};
    scored.score = std::accumulate(values, values + target.size(), 0.0);
    results.push_back(std::move(scored));
  }
  return results;
}

}  // namespace switchyard
