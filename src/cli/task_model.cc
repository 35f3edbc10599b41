#include "cli/task_model.h"

#include <unistd.h>

#include <iostream>

#include "checkpoint/checkpoint_store.h"
#include "cli/model_vocabulary.h"

namespace switchyard {
namespace {

InferenceModel open(const std::filesystem::path& folder, const ComputeOptions& compute) {
  apply(compute);
  return open_for_inference(resolve_model_folder(folder), dtype_of(compute.dtype.empty() ? "fp32" : compute.dtype),
                            device_of(compute), compute.expert_memory);
}

}  // namespace

TaskModel::TaskModel(const std::filesystem::path& folder, const ComputeOptions& compute,
                     const TaskOutputOptions& options)
    : model_(open(folder, compute)),
      vocabulary_(open_vocabulary(resolve_model_folder(folder), model_.config)),
      options_(options) {}

std::vector<std::string> TaskModel::predict(const Task& task, std::span<const TaskExample> examples) const {
  const bool show = isatty(STDERR_FILENO) != 0;
  auto outputs = task_outputs(model_.config, model_.weights, vocabulary_, task, examples, options_, [&](size_t done) {
    if (show) std::cerr << "\r" << done << " of " << examples.size() << " examples" << std::flush;
  });
  if (show) std::cerr << '\r' << std::string(40, ' ') << '\r' << std::flush;
  return outputs;
}

}  // namespace switchyard
