// The safetensors format: eight bytes of header length, a JSON header, then the tensors' bytes without gaps.
// https://github.com/huggingface/safetensors. Stricter than the reference reader on one point: a name given twice is an
// error. Types: F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/stored_tensor.h"

namespace switchyard {

using NamedTensors = std::map<std::string, at::Tensor>;

struct SafetensorsEntry {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes within the data section
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // in data order
  std::map<std::string, std::string> metadata;
  uint64_t data_offset = 0;  // of the data section in the file
};

// Checks a file and lists what it holds: header length, JSON, types, shapes, and that the tensors cover the data
// section exactly once. `file` is all of its bytes, or its first ones up to the data, with the file's size in
// `file_bytes`. Throws Error naming `source` and the tensor. Allocates in proportion to the header only.
SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& source,
                                    std::optional<uint64_t> file_bytes = {});

// Bytes of header that a file's first 8 bytes announce, or as many as parse_safetensors would take; 0 if there are
// fewer than 8.
uint64_t safetensors_header_bytes(std::span<const std::byte> file);

// The tensors of a file by their header alone; reading one later throws Error if the file was changed meanwhile.
StoredTensors list_safetensors(const std::filesystem::path& path);

struct SafetensorsFile {
  NamedTensors tensors;
  std::map<std::string, std::string> metadata;
};

// Maps a file and gives its tensors as views of the mapping, which lives as long as any of them. The memory is
// read-only: writing to a view ends the process. A tensor that is not aligned to its element is copied. Throws Error as
// above.
SafetensorsFile read_safetensors(const std::filesystem::path& path);

struct TensorToWrite {
  std::string name;
  at::Tensor tensor;                      // any device, dtype and layout
  at::ScalarType dtype;                   // as stored; converted while writing, one tensor at a time
  std::function<at::Tensor()> read = {};  // if set, gives the values when they are due; `tensor` only tells their shape
};

// Writes a file in one step (see base/files.h). Order, alignment and header are those of the reference implementation:
// wider types first, then by name, header padded to a multiple of 8. Throws Error on a name given twice and when the
// disk refuses; an older file of that name then still stands.
void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

// In the order of the reference implementation's enumeration, by which its writer sorts.
struct SafetensorsDtype {
  const char* name;
  at::ScalarType dtype;
};
inline constexpr SafetensorsDtype kSafetensorsDtypes[] = {
    {"BOOL", at::kBool},     {"U8", at::kByte}, {"I8", at::kChar},   {"I16", at::kShort},  {"F16", at::kHalf},
    {"BF16", at::kBFloat16}, {"I32", at::kInt}, {"F32", at::kFloat}, {"F64", at::kDouble}, {"I64", at::kLong}};

// "F32", "BF16", ...; throws Error for a type that this program does not store.
const char* safetensors_dtype_name(at::ScalarType dtype);

}  // namespace switchyard
