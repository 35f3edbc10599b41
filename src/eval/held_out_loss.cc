#include "eval/held_out_loss.h"

#include "eval/text_loss.h"

namespace switchyard {

std::vector<NamedNumber> HeldOutLoss::evaluate(const ModelConfig& config, const ComputeWeights& weights) const {
  const auto result =
      text_loss(config, weights, data_.num_batches(), [&](int64_t index) { return data_.batch(index); });
  return {{"eval_loss", result.loss},
          {"eval_tokens", static_cast<double>(result.tokens)},
          {"eval_accuracy", result.accuracy},
          {"eval_dropped_fraction", result.dropped_fraction}};
}

}  // namespace switchyard
