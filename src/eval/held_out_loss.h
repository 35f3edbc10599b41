// Held-out loss as an evaluator: span corruption of a fixed set of segments with fixed noise.
#pragma once

#include <string>
#include <vector>

#include "data/pretraining.h"
#include "eval/evaluator.h"

namespace switchyard {

// Gives eval_loss (nats per target token), eval_tokens, eval_accuracy and eval_dropped_fraction, and from the same pass
// eval_loss_NAME of each text of several.
class HeldOutLoss : public Evaluator {
 public:
  // names: of the data's texts, in their order; none where they are looked at as one.
  explicit HeldOutLoss(EvaluationData data, std::vector<std::string> names = {})
      : data_(std::move(data)), names_(std::move(names)) {}
  std::vector<NamedNumber> evaluate(const ModelConfig& config, const ComputeWeights& weights) const override;

 private:
  EvaluationData data_;
  std::vector<std::string> names_;
};

}  // namespace switchyard
