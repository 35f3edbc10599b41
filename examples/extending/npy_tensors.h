// A file format of one's own: a folder of NumPy arrays, NAME.npy (format 1.0) for each tensor.
#pragma once

#include <filesystem>

#include "checkpoint/stored_tensor.h"

namespace switchyard::examples {

// The arrays by their headers alone; read later. f32 and f64 in C order. Throws Error naming the file on any other
// header, and where file size and shape do not fit.
StoredTensors list_npy(const std::filesystem::path& folder);

}  // namespace switchyard::examples
