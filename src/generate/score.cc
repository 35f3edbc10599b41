#include "generate/score.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/topk.h>

#include "base/error.h"
#include "generate/prompt.h"

namespace switchyard {
namespace {

constexpr int64_t kTokensAtATime = 256;  // bounds the memory of logits

void check_target(const ModelConfig& config, std::span<const int32_t> target) {
  check_ids(target, config.vocab_size, "target");
  SY_CHECK(!target.empty(), "target is empty");
}

std::vector<TokenScore> score_encoded(const ModelConfig& config, const ComputeWeights& weights,
                                      const EncodedPrompt& encoded, std::span<const int32_t> target,
                                      int64_t num_likeliest) {
  const auto ids = row_tensor(target, weights.output.device());
  // No decoder mask: a target may hold id 0.
  const auto hidden =
      decode(config, weights, {shift_right(ids)}, encoded.hidden, {.mask = encoded.mask}, {.drop_tokens = false})
          .hidden;
  std::vector<TokenScore> scores;
  for (int64_t first = 0; first < ids.size(1); first += kTokensAtATime) {
    const int64_t count = std::min(kTokensAtATime, ids.size(1) - first);
    const auto logits = output_logits(weights, hidden.select(0, 0).narrow(0, first, count)).to(at::kDouble);
    const auto log_sums = at::logsumexp(logits, -1, /*keepdim=*/true);  // [count, 1]
    const auto of_targets = logits.gather(-1, ids.select(0, 0).narrow(0, first, count).unsqueeze(-1)) - log_sums;
    const auto [values, places] = at::topk(logits, num_likeliest, -1);
    const auto chosen = of_targets.cpu().contiguous(), best = (values - log_sums).cpu().contiguous(),
               best_ids = places.cpu().contiguous();
    for (int64_t n = 0; n < count; ++n) {
      auto& score = scores.emplace_back(TokenScore{chosen.const_data_ptr<double>()[n]});
      for (int64_t rank = n * num_likeliest; rank < (n + 1) * num_likeliest; ++rank)
        score.likeliest.emplace_back(static_cast<int32_t>(best_ids.const_data_ptr<int64_t>()[rank]),
                                     best.const_data_ptr<double>()[rank]);
    }
  }
  return scores;
}

}  // namespace

std::vector<TokenScore> score_tokens(const ModelConfig& config, const ComputeWeights& weights,
                                     std::span<const int32_t> prompt, std::span<const int32_t> target,
                                     int64_t num_likeliest) {
  const at::NoGradGuard no_grad;
  check_prompt(prompt, config.vocab_size);
  check_target(config, target);
  SY_CHECK(num_likeliest >= 0 && num_likeliest <= config.vocab_size, "likeliest tokens ", num_likeliest,
           ": expected 0 to the vocabulary's ", config.vocab_size);
  return score_encoded(config, weights, encode_prompt(config, weights, prompt), target, num_likeliest);
}

std::vector<Scored> score_targets(const ModelConfig& config, const ComputeWeights& weights,
                                  std::span<const int32_t> prompt, const std::vector<std::vector<int32_t>>& targets) {
  const at::NoGradGuard no_grad;
  check_prompt(prompt, config.vocab_size);
  for (const auto& target : targets) check_target(config, target);
  const auto encoded = encode_prompt(config, weights, prompt);
  std::vector<Scored> results;
  for (const auto& target : targets) {
    auto& scored = results.emplace_back();
    for (const auto& token : score_encoded(config, weights, encoded, target, /*num_likeliest=*/0)) {
      scored.score += token.log_probability;
      scored.token_log_probabilities.push_back(token.log_probability);
    }
  }
  return results;
}

}  // namespace switchyard
