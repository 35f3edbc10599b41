#include "eval/held_out_loss.h"

#include "eval/text_loss.h"

namespace switchyard {

std::vector<NamedNumber> HeldOutLoss::evaluate(const ModelConfig& config, const ComputeWeights& weights) const {
  const auto result =
      text_loss(config, weights, data_.num_batches(), [&](int64_t index) { return data_.batch(index); });
  std::vector<NamedNumber> numbers = {{"eval_loss", result.loss},
                                      {"eval_tokens", static_cast<double>(result.tokens)},
                                      {"eval_accuracy", result.accuracy},
                                      {"eval_dropped_fraction", result.dropped_fraction}};
  for (size_t text = 0; text < names_.size(); ++text) {
    // A single text's batches have no parts.
    const double loss =
        names_.size() == 1 ? result.loss : result.parts[text].loss / static_cast<double>(result.parts[text].labels);
    numbers.push_back({"eval_loss_" + names_[text], loss});
  }
  return numbers;
}

}  // namespace switchyard
