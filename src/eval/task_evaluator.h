// A task's metrics as an evaluator: how good the model is at it, measured on the way.
#pragma once

#include "eval/evaluator.h"
#include "eval/task_outputs.h"

namespace switchyard {

// Gives eval_TASK_METRIC for every metric of the task, percentages; one that is not defined is left out.
class TaskEvaluator : public Evaluator {
 public:
  // The vocabulary outlives the evaluator.
  TaskEvaluator(Task task, std::vector<TaskExample> examples, const Vocabulary& vocabulary,
                const TaskOutputOptions& options);
  std::vector<NamedNumber> evaluate(const ModelConfig& config, const ComputeWeights& weights) const override;

 private:
  Task task_;
  std::vector<TaskExample> examples_;
  const Vocabulary& vocabulary_;
  TaskOutputOptions options_;
};

}  // namespace switchyard
