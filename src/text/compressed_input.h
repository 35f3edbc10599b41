// Bytes of a file, a compressed file or standard input, as a stream. gzip (also of several members, as dictzip writes)
// and zstd are known by their first bytes, whatever the name says.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>

namespace switchyard {

class CompressedInput {
 public:
  // "-" is standard input. Throws Error, naming the path, if it cannot be opened, or is named .gz, .dz or .zst and is
  // not.
  explicit CompressedInput(const std::filesystem::path& path);
  ~CompressedInput();
  CompressedInput(const CompressedInput&) = delete;
  CompressedInput& operator=(const CompressedInput&) = delete;

  // Up to `size` uncompressed bytes; 0 only at the end. Throws Error if the file is damaged or cut short.
  size_t read(char* out, size_t size);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace switchyard
