// The tensors of a model folder, whatever files hold them.
#pragma once

#include <filesystem>

#include "checkpoint/safetensors.h"
#include "checkpoint/stored_tensor.h"

namespace switchyard {

// All tensors of `folder`, by the files' headers alone: of model.safetensors, of the shards that
// model.safetensors.index.json names, or of pytorch_model.bin and its shards. Throws Error if neither is there, a shard
// is missing or lies outside the folder, or a named tensor is not in it.
StoredTensors list_model_tensors(const std::filesystem::path& folder);

// Writes model.safetensors, or shards of at most `max_shard_bytes` (a larger tensor has one of its own) and their
// index.
void write_model_tensors(const std::filesystem::path& folder, std::vector<TensorToWrite> tensors,
                         uint64_t max_shard_bytes);

// Shard `number` of `count`, from 1, alone; write_index_of_files() makes the index of all shards in the folder, if
// there are any, from their headers.
void write_tensor_file(const std::filesystem::path& folder, std::vector<TensorToWrite> tensors, size_t number,
                       size_t count);
void write_index_of_files(const std::filesystem::path& folder);

// Files in `folder` that have a name under which write_model_tensors() writes.
std::vector<std::filesystem::path> list_written_tensors(const std::filesystem::path& folder);

}  // namespace switchyard
