// A model's outputs for a task's examples.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cli/compute_options.h"
#include "tasks/examples.h"

namespace switchyard {

struct TaskModelOptions {
  int64_t encoder_length = 512;  // longer inputs are cut, the EOS kept
  int64_t max_tokens = 128;      // of an output
  int64_t beams = 1;
  int64_t batch_size = 8;
  bool rank = false;  // the most likely label or choice, instead of free text
};

class TaskModel {
 public:
  TaskModel(const std::filesystem::path& folder, const ComputeOptions& compute, const TaskModelOptions& options);
  ~TaskModel();

  // One output an example. Throws Error where ranking is asked for and the task has neither labels nor choices.
  std::vector<std::string> predict(const Task& task, std::span<const TaskExample> examples);

  int64_t truncated_inputs() const;  // of all calls

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace switchyard
