// A model opened for inference, with its vocabulary if it has one.
#pragma once

#include <filesystem>
#include <mutex>
#include <optional>
#include <string>

#include "checkpoint/model_directory.h"
#include "text/vocabulary.h"

namespace switchyard {

struct PythonModel {
  // Throws Error as open_for_inference() and open_vocabulary() do. dtype, device: as --dtype and --device.
  PythonModel(const std::filesystem::path& path, const std::string& dtype, const std::string& device);

  const Vocabulary* text() const { return vocabulary ? &*vocabulary : nullptr; }

  std::filesystem::path folder;
  InferenceModel model;
  std::optional<Vocabulary> vocabulary;
  // Experts are read from the disk when rows come, so one thread computes at a time. Taken without Python's lock.
  std::mutex mutex;
};

}  // namespace switchyard
