#include "checkpoint/stored_tensors.h"

#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "checkpoint/torch_archive.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

// File formats in order of preference, as HF's.
struct Format {
  const char* file;
  const char* index;
  StoredTensors (*list)(const fs::path&);
};
constexpr Format kFormats[] = {
    {"model.safetensors", "model.safetensors.index.json", list_safetensors},
    {"pytorch_model.bin", "pytorch_model.bin.index.json", list_torch_archive},
};
constexpr uint64_t kMaxIndexBytes = uint64_t{1} << 26;  // Switch-C's, of 62,000 tensors, takes 7 MB

bool stays_inside(const fs::path& path) {
  return !path.empty() && path.is_relative() &&
         std::none_of(path.begin(), path.end(), [](const auto& part) { return part == ".."; });
}

// Tensor name to file name.
std::map<std::string, std::string> read_index(const fs::path& path) {
  std::map<std::string, std::string> files;
  try {
    const LargeJson index = parse_large_json(read_file(path, kMaxIndexBytes), path.string());
    for (const auto& [name, file] : index.at("weight_map").items()) files[name] = file.get<std::string>();
  } catch (const LargeJson::exception& error) {
    throw Error(join(path.string(), ": expected {\"weight_map\": {tensor: file}}: ", error.what()));
  }
  for (const auto& [name, file] : files)
    SY_CHECK(stays_inside(file), path.string(), ": the file of ", name, " is \"", file.substr(0, 120),
             "\", which lies outside the model's folder");
  return files;
}

StoredTensors list_shards(const fs::path& folder, const Format& format) {
  const auto index = (folder / format.index).string();
  std::map<std::string, StoredTensors> shards;
  StoredTensors tensors;
  for (const auto& [name, file] : read_index(index)) {
    auto [shard, is_new] = shards.try_emplace(file);
    if (is_new) {
      SY_CHECK(fs::exists(folder / file), index, " names ", file, ", which is missing; fetch it again");
      shard->second = format.list(folder / file);
    }
    const auto found = shard->second.find(name);
    SY_CHECK(found != shard->second.end(), index, ": ", name, " is not in ", file);
    tensors.insert(*found);
  }
  return tensors;
}

std::string shard_name(size_t number, size_t count) {
  char name[64];
  std::snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors", number, count);
  return name;
}

uint64_t stored_bytes(const TensorToWrite& each) {
  return static_cast<uint64_t>(each.tensor.numel()) * c10::elementSize(each.dtype);
}

}  // namespace

StoredTensors list_model_tensors(const fs::path& folder) {
  for (const auto& format : kFormats) {
    if (fs::exists(folder / format.file)) return format.list(folder / format.file);
    if (fs::exists(folder / format.index)) return list_shards(folder, format);
  }
  throw Error(join("no weights in ", folder.string(), ": expected ", kFormats[0].file, ", ", kFormats[0].index, ", ",
                   kFormats[1].file, " or ", kFormats[1].index));
}

std::vector<fs::path> list_written_tensors(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    size_t number = 0, count = 0;
    const bool is_shard =
        std::sscanf(name.c_str(), "model-%zu-of-%zu", &number, &count) == 2 && name == shard_name(number, count);
    if (is_shard || name == kFormats[0].file || name == kFormats[0].index) files.push_back(entry.path());
  }
  return files;
}

void write_tensor_file(const fs::path& folder, std::vector<TensorToWrite> tensors, size_t number, size_t count) {
  write_safetensors(folder / shard_name(number, count), std::move(tensors));
}

void write_index_of_files(const fs::path& folder) {
  uint64_t total = 0;
  LargeJson names = LargeJson::object();
  for (const auto& path : list_written_tensors(folder)) {
    if (path.filename() == kFormats[0].file || path.filename() == kFormats[0].index) continue;
    for (const auto& [name, tensor] : list_safetensors(path)) {
      names[name] = path.filename().string();
      total += tensor.nbytes();
    }
  }
  if (names.empty()) return;
  const LargeJson index = {{"metadata", {{"total_size", total}}}, {"weight_map", names}};
  write_file_atomically(folder / kFormats[0].index, index.dump(2) + "\n");
}

void write_model_tensors(const fs::path& folder, std::vector<TensorToWrite> tensors, uint64_t max_shard_bytes) {
  std::vector<std::vector<TensorToWrite>> shards(1);
  uint64_t in_shard = 0;
  for (auto& each : tensors) {
    const uint64_t bytes = stored_bytes(each);
    if (in_shard > 0 && in_shard + bytes > max_shard_bytes) {
      shards.emplace_back();
      in_shard = 0;
    }
    in_shard += bytes;
    shards.back().push_back(std::move(each));
  }
  if (shards.size() == 1) {
    write_safetensors(folder / kFormats[0].file, std::move(shards[0]));
    return;
  }
  for (size_t shard = 0; shard < shards.size(); ++shard)
    write_tensor_file(folder, std::move(shards[shard]), shard + 1, shards.size());
  write_index_of_files(folder);
}

}  // namespace switchyard
