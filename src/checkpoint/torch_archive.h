// PyTorch's `.bin` files (torch.save of a state dict since version 1.6): a ZIP file with a pickle and one entry a
// storage.
//
// Only tensors are read. The pickle runs on a machine that knows dictionaries, tuples, numbers, strings and how PyTorch
// rebuilds a tensor; anything else in it, code above all, is an error.
#pragma once

#include <filesystem>

#include "checkpoint/stored_tensor.h"

namespace switchyard {

// The tensors of a state dict, without their values. Throws Error naming the file, and the function that a pickle asked
// for.
StoredTensors list_torch_archive(const std::filesystem::path& path);

}  // namespace switchyard
