// The weights that a run begins or goes on with, parameter by parameter.
#pragma once

#include <filesystem>

#include "parallel/rank_weights.h"
#include "train/run_config.h"

namespace switchyard {

// Of a new run: those of init; without it initial values, with what a teacher has outside experts where it is
// inherited.
ParameterValues first_values(const RunConfig& run, at::Device device);

// Of a checkpoint. Throws Error if its tensors are not those of the run file's [model]; `out`: the run's folder, which
// the message names.
ParameterValues checkpoint_values(const RunConfig& run, const std::filesystem::path& checkpoint,
                                  const std::filesystem::path& out);

}  // namespace switchyard
