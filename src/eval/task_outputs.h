// What a model answers to a task's examples: text that it generates, or the likeliest of the answers that are possible.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "model/transformer.h"
#include "tasks/examples.h"
#include "text/vocabulary.h"

namespace switchyard {

struct TaskOutputOptions {
  int64_t encoder_length = 512;  // longer inputs are cut, the EOS kept (tasks/long_texts.h finds them)
  int64_t max_tokens = 128;      // of an output
  int64_t beams = 1;
  int64_t batch_size = 8;
  bool rank = false;  // the most likely label or choice, instead of free text
};

// The outputs' texts, one an example. Calls `progress` with the number of examples that are done, now and then. Throws
// Error for an encoder_length below 2, and where ranking is asked for and the task has neither labels nor choices.
std::vector<std::string> task_outputs(const ModelConfig& config, const ComputeWeights& weights,
                                      const Vocabulary& vocabulary, const Task& task,
                                      std::span<const TaskExample> examples, const TaskOutputOptions& options,
                                      const std::function<void(size_t done)>& progress = {});

}  // namespace switchyard
