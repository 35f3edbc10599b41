// A model's outputs for a task's examples, with a line that shows how far it is.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/model_directory.h"
#include "cli/compute_options.h"
#include "eval/task_outputs.h"

namespace switchyard {

class TaskModel {
 public:
  // Throws Error as open_for_inference() and open_vocabulary() do.
  TaskModel(const std::filesystem::path& folder, const ComputeOptions& compute, const TaskOutputOptions& options);

  std::vector<std::string> predict(const Task& task, std::span<const TaskExample> examples) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  InferenceModel model_;
  Vocabulary vocabulary_;
  TaskOutputOptions options_;
};

}  // namespace switchyard
