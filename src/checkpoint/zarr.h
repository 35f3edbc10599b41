// One array in zarr format 2, as TensorStore writes it for T5X: a folder with `.zarray` and a file for each chunk.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>

namespace switchyard {

// The whole array, owned. C order, without filters; chunks plain, gzip or zlib. Throws Error naming the file.
at::Tensor read_zarr(const std::filesystem::path& folder);

}  // namespace switchyard
