// A teacher that is a model, run beside its student without gradients.
#pragma once

#include "checkpoint/model_directory.h"
#include "train/teacher.h"

namespace switchyard {

class ModelTeacher : public Teacher {
 public:
  // weight and temperature as in SoftTargets.
  ModelTeacher(InferenceModel model, double weight, double temperature);

  // The teacher in evaluation mode: no noise, eval_capacity_factor, the groups of the step's whole batch.
  SoftTargets soft_targets(const LossInput& input, int64_t step, int64_t first_example,
                           const StepTotals& totals) const override;
  int64_t sequences_per_cut(const BatchShape& shape) const override;

 private:
  InferenceModel model_;
  double weight_, temperature_;
};

}  // namespace switchyard
