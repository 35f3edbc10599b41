// ZIP files as torch.save makes them, for tests and fuzz targets.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace switchyard {

inline void append_little_endian(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i, value >>= 8) out.push_back(static_cast<char>(value));
}

// A ZIP file of plainly stored entries.
inline std::string zip_of(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string file, directory;
  for (const auto& [name, bytes] : entries) {
    const uint64_t offset = file.size();
    append_little_endian(file, 0x04034b50, 4);
    append_little_endian(file, 0, 14);  // version, flags, method, time, checksum
    append_little_endian(file, bytes.size(), 4);
    append_little_endian(file, bytes.size(), 4);
    append_little_endian(file, name.size(), 2);
    append_little_endian(file, 0, 2);
    file += name + bytes;
    append_little_endian(directory, 0x02014b50, 4);
    append_little_endian(directory, 0, 16);
    append_little_endian(directory, bytes.size(), 4);
    append_little_endian(directory, bytes.size(), 4);
    append_little_endian(directory, name.size(), 2);
    append_little_endian(directory, 0, 12);
    append_little_endian(directory, offset, 4);
    directory += name;
  }
  const uint64_t start = file.size();
  file += directory;
  append_little_endian(file, 0x06054b50, 4);
  append_little_endian(file, 0, 4);
  append_little_endian(file, entries.size(), 2);
  append_little_endian(file, entries.size(), 2);
  append_little_endian(file, directory.size(), 4);
  append_little_endian(file, start, 4);
  append_little_endian(file, 0, 2);
  return file;
}

}  // namespace switchyard
