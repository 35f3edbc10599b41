// What a run measures on the way, by names: held-out loss, and scores of tasks.
#pragma once

#include <vector>

#include "base/named_number.h"
#include "model/transformer.h"

namespace switchyard {

class Evaluator {
 public:
  virtual ~Evaluator() = default;

  // Numbers under the names that metrics.jsonl gives them ("eval_loss"), in a fixed order. Called without gradients.
  virtual std::vector<NamedNumber> evaluate(const ModelConfig& config, const ComputeWeights& weights) const = 0;
};

}  // namespace switchyard
