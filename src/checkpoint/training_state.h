// What lies in `training/` beside a model's weights, for exact resume: named tensors and one JSON document.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "base/config.h"

namespace switchyard {

// What the caller wants back: optimiser slots as tensors, positions and settings as JSON.
struct TrainingState {
  int64_t step = 0;                                              // steps done
  std::vector<std::pair<std::string, at::Tensor>> tensors = {};  // sorted by name when read
  Json state = Json::object();
};

// Writes <model folder>/training/optimizer.safetensors and state.json; tensors in their own types, bit for bit.
void write_training_state(const std::filesystem::path& model_folder, const TrainingState& training);

// The same by several processes: each writes its tensors, as number `number` of `count` from 0, and then one of them
// the rest, without tensors of its own.
void write_training_tensors(const std::filesystem::path& model_folder,
                            const std::vector<std::pair<std::string, at::Tensor>>& tensors, int64_t number,
                            int64_t count);
void write_training_step(const std::filesystem::path& model_folder, int64_t step, const Json& state);

// Tensors of all files, mapped: memory is taken where they are read, and they are not to be written to. Throws Error if
// there is no training state, or it is damaged.
TrainingState read_training_state(const std::filesystem::path& model_folder);

// state.json alone; `tensors` stays empty.
TrainingState read_training_step(const std::filesystem::path& model_folder);

}  // namespace switchyard
