#include "checkpoint/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "base/error.h"
#include "base/files.h"

namespace switchyard {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian and read in place");

int64_t dtype_rank(at::ScalarType dtype) {
  return std::find_if(std::begin(kSafetensorsDtypes), std::end(kSafetensorsDtypes),
                      [&](const auto& each) { return each.dtype == dtype; }) -
         std::begin(kSafetensorsDtypes);
}

at::Tensor view_of(const std::shared_ptr<MappedFile>& mapping, const SafetensorsHeader& header,
                   const SafetensorsEntry& entry, const std::string& source) {
  const auto options = at::TensorOptions().dtype(entry.dtype);
  const std::byte* data = mapping->bytes().data() + header.data_offset + entry.begin;
  const size_t bytes = entry.end - entry.begin;
  if (bytes == 0) return at::empty(entry.shape, options);
  if (entry.dtype == at::kBool)
    SY_CHECK(std::all_of(data, data + bytes, [](std::byte value) { return value <= std::byte{1}; }), source,
             ": tensor \"", entry.name.substr(0, 120), "\" is BOOL, but has bytes other than 0 and 1");
  if (reinterpret_cast<uintptr_t>(data) % c10::elementSize(entry.dtype) != 0) {
    auto copy = at::empty(entry.shape, options);
    std::memcpy(copy.mutable_data_ptr(), data, bytes);
    return copy;
  }
  return at::from_blob(
      const_cast<std::byte*>(data), entry.shape, [mapping](void*) {}, options);
}

std::string header_text(const std::vector<TensorToWrite>& tensors, const std::map<std::string, std::string>& metadata) {
  // Put together by hand: the order of the keys is that of the data.
  std::string text = "{";
  try {
    if (!metadata.empty()) text += "\"__metadata__\":" + nlohmann::json(metadata).dump();
    uint64_t offset = 0;
    for (const auto& [name, tensor, dtype, read] : tensors) {
      const uint64_t end = offset + static_cast<uint64_t>(tensor.numel()) * c10::elementSize(dtype);
      text += join(text.size() > 1 ? "," : "", nlohmann::json(name).dump(), ":{\"dtype\":\"",
                   safetensors_dtype_name(dtype), "\",\"shape\":", nlohmann::json(tensor.sizes().vec()).dump(),
                   ",\"data_offsets\":[", offset, ",", end, "]}");
      offset = end;
    }
  } catch (const nlohmann::json::exception& error) {
    throw Error(join("cannot write safetensors: a name is not UTF-8: ", error.what()));
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

SafetensorsFile read_safetensors(const std::filesystem::path& path) {
  const auto mapping = std::make_shared<MappedFile>(path);
  auto header = parse_safetensors(mapping->bytes(), path.string());
  SafetensorsFile file;
  for (const auto& entry : header.entries)
    file.tensors.emplace(entry.name, view_of(mapping, header, entry, path.string()));
  file.metadata = std::move(header.metadata);
  return file;
}

StoredTensors list_safetensors(const std::filesystem::path& path) {
  const auto file = std::make_shared<const InputFile>(path);
  const auto head = [&](uint64_t bytes) {
    std::vector<std::byte> start(std::min(bytes, file->size()));
    file->read(0, start.data(), start.size());
    return start;
  };
  const auto header = parse_safetensors(head(8 + safetensors_header_bytes(head(8))), path.string(), file->size());
  StoredTensors tensors;
  for (const auto& entry : header.entries)
    tensors.emplace(entry.name, stored_in_file(file, header.data_offset + entry.begin, entry.dtype, entry.shape));
  return tensors;
}

void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::sort(tensors.begin(), tensors.end(), [](const auto& left, const auto& right) {
    return std::make_tuple(-dtype_rank(left.dtype), std::cref(left.name)) <
           std::make_tuple(-dtype_rank(right.dtype), std::cref(right.name));
  });
  std::set<std::string> names;
  for (const auto& each : tensors)
    SY_CHECK(names.insert(each.name).second && each.name != "__metadata__", "cannot write ", path.string(),
             ": the name \"", each.name, "\" is taken");
  const std::string header = header_text(tensors, metadata);
  AtomicFile file(path);
  uint64_t length = header.size();
  file.write(&length, sizeof(length));
  file.write(header.data(), header.size());
  for (const auto& each : tensors) {
    if (each.tensor.numel() == 0) continue;
    const auto stored = (each.read ? each.read() : each.tensor).detach().to(at::kCPU, each.dtype).contiguous();
    file.write(stored.const_data_ptr(), stored.nbytes());
  }
  file.commit();
}

}  // namespace switchyard
