// The values of a GGUF file's tensors. ggml's quantised types are blocks of small integers with scales in f16; the
// values are those that ggml computes, in f32.
#pragma once

#include <memory>

#include "checkpoint/gguf_header.h"
#include "checkpoint/stored_tensor.h"

namespace switchyard {

// `count` blocks of a quantised type into count * block_values values.
void dequantise_blocks(GgufType type, const uint8_t* blocks, int64_t count, float* values);

// A quantised tensor is one of f32, its values made while it is read, through a few MiB of memory.
StoredTensor stored_in_gguf(std::shared_ptr<const InputFile> file, const GgufTensor& tensor);

// Part `number` of the first axis, as a tensor of its own.
StoredTensor part_of(const StoredTensor& whole, int64_t number);

}  // namespace switchyard
