// The weights that a run begins or goes on with, parameter by parameter.
#pragma once

#include <filesystem>
#include <string>

#include "checkpoint/adapters.h"
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

// The folder of the model that a run's low-rank updates are added to, as their checkpoints name it.
std::string adapted_folder(const RunConfig& run);

// Of a checkpoint of such updates. Throws Error if they are updates of another model than init names now.
Adapters checkpoint_adapters(const RunConfig& run, const std::filesystem::path& checkpoint);

}  // namespace switchyard
