// The part of `switchyard eval` that scores outputs of a task, or of a benchmark's tasks: given ones, or a model's.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "cli/task_model.h"

namespace switchyard {

struct EvalTaskOptions {
  std::string task, data = ".", split, from_predictions, predictions, bad_rows = "refuse", long_inputs = "cut";
  TaskOutputOptions model;  // batch_size and encoder_length are eval's own
};

void add_eval_task_options(CLI::App& eval, EvalTaskOptions& options);

// `model`: a model's folder; "" where predictions are given.
void eval_task(const EvalTaskOptions& options, const std::string& model, const ComputeOptions& compute, bool json);

}  // namespace switchyard
