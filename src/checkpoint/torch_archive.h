// PyTorch's `.bin` files (torch.save of a state dict since version 1.6): a ZIP file with a pickle and one entry a
// storage.
//
// Only tensors are read. The pickle runs on a machine that knows dictionaries, tuples, numbers, strings and how PyTorch
// rebuilds a tensor; anything else in it, code above all, is an error.
#pragma once

#include <filesystem>

#include "checkpoint/safetensors.h"

namespace switchyard {

// The tensors of a state dict as read-only views of the mapped file, which lives as long as any of them. Throws Error
// naming the file, and the function that a pickle asked for.
NamedTensors read_torch_archive(const std::filesystem::path& path);

}  // namespace switchyard
