// T5X checkpoints (T5X and Flaxformer): the format of the released Switch weights.
//
// A msgpack file of nested maps, with arrays inside it or beside it as zarr folders named by their path
// ("target.encoder.layers_0..."). Names and transposes: kernels are [in, out] there; layers are arrays of
// their own or scanned (t5x_scanned.h). Optimiser state is not read.
#pragma once

#include <filesystem>

#include "checkpoint/model_directory.h"

namespace switchyard {

// True if `path` is a T5X checkpoint's folder (a file `checkpoint`, or zarr folders) or a msgpack file, plain or
// gzipped.
bool is_t5x_checkpoint(const std::filesystem::path& path);

// The model, with a configuration inferred from shapes: that of the preset of the same shape if there is one, else
// defaults for what no array shows (capacity, groups, dropout). Experts are numbered, and sparse layers lie, as in the
// file. Throws Error naming arrays that fit no T5.
LoadedModel import_t5x(const std::filesystem::path& path, at::ScalarType dtype);

}  // namespace switchyard
