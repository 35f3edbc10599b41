// Held-out loss as an evaluator: span corruption of a fixed set of segments with fixed noise.
#pragma once

#include "data/pretraining.h"
#include "eval/evaluator.h"

namespace switchyard {

// Gives eval_loss (nats per target token), eval_tokens, eval_accuracy and eval_dropped_fraction.
class HeldOutLoss : public Evaluator {
 public:
  explicit HeldOutLoss(EvaluationData data) : data_(std::move(data)) {}
  std::vector<NamedNumber> evaluate(const ModelConfig& config, const ComputeWeights& weights) const override;

 private:
  EvaluationData data_;
};

}  // namespace switchyard
