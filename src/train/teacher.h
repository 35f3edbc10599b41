// Who says, beside the labels, what a model should answer (Switch §4.2): a larger model, or what was kept of its
// answers.
#pragma once

#include "model/loss.h"
#include "model/routing_groups.h"

namespace switchyard {

class Teacher {
 public:
  virtual ~Teacher() = default;

  // Of rows first_example, first_example + 1, ... of update number `step`, a part of a batch of `totals`. Its
  // probabilities are made when they are asked for, without gradient.
  virtual SoftTargets soft_targets(const LossInput& input, int64_t step, int64_t first_example,
                                   const StepTotals& totals) const = 0;

  // Multiples of this many sequences of a batch are answered as in the whole batch.
  virtual int64_t sequences_per_cut(const BatchShape& shape) const = 0;
};

}  // namespace switchyard
