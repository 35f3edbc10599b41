#include "eval/task_evaluator.h"

#include <cmath>

#include "base/error.h"
#include "tasks/score.h"

namespace switchyard {

TaskEvaluator::TaskEvaluator(Task task, std::vector<TaskExample> examples, const Vocabulary& vocabulary,
                             const TaskOutputOptions& options)
    : task_(std::move(task)), examples_(std::move(examples)), vocabulary_(vocabulary), options_(options) {}

std::vector<NamedNumber> TaskEvaluator::evaluate(const ModelConfig& config, const ComputeWeights& weights) const {
  const auto outputs = task_outputs(config, weights, vocabulary_, task_, examples_, options_);
  std::vector<NamedNumber> numbers;
  for (const auto& [name, value] : score(task_, examples_, outputs))
    if (std::isfinite(value)) numbers.push_back({join("eval_", task_.name, "_", name), value});
  return numbers;
}

}  // namespace switchyard
