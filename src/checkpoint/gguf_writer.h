// The head of a GGUF file that is written, and what our own files are called by.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/gguf_header.h"

namespace switchyard {

// Files of models that llama.cpp's T5 does not compute: it says that it does not know the architecture.
inline constexpr char kOwnArchitecture[] = "switchyard";
inline constexpr char kConfigKey[] = "switchyard.config";  // the whole configuration as JSON, in every file of ours
inline constexpr uint64_t kGgufAlignment = 32;

// Collects keys and tensors in the order in which they will stand.
class GgufHead {
 public:
  void add(const std::string& key, uint32_t value);
  void add(const std::string& key, float value);
  void add(const std::string& key, bool value);
  void add(const std::string& key, const std::string& value);
  void add(const std::string& key, const std::vector<std::string>& values);
  void add(const std::string& key, const std::vector<float>& values);
  void add(const std::string& key, const std::vector<int32_t>& values);
  void add(const std::string& key, const std::vector<uint8_t>& values);

  // shape: row-major. Each tensor's data follows the one before, at the next multiple of kGgufAlignment.
  void add_tensor(const std::string& name, const std::vector<int64_t>& shape, GgufType type);

  // The bytes up to the data.
  std::string bytes() const;

 private:
  void begin(const std::string& key, uint32_t type);

  std::string pairs_, tensors_;
  uint64_t num_pairs_ = 0, num_tensors_ = 0, data_bytes_ = 0;
};

// Bytes from `size` to the next multiple of kGgufAlignment.
uint64_t gguf_padding(uint64_t size);

}  // namespace switchyard
