#include "checkpoint/zip_archive.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>

#include "base/error.h"

namespace switchyard {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50, kCentralHeader = 0x02014b50, kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50, kEnd64Locator = 0x07064b50;
constexpr size_t kEndBytes = 22, kCentralBytes = 46, kLocalBytes = 30, kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr uint32_t kIn64 = 0xffffffff;  // "see the ZIP64 field"

// Little-endian fields of a span, with bounds.
class Fields {
 public:
  Fields(std::span<const std::byte> bytes, const std::string& source) : bytes_(bytes), source_(source) {}
  template <class T>
  T at(uint64_t offset) const {
    const auto part = slice(offset, sizeof(T));
    T value;
    std::memcpy(&value, part.data(), sizeof(T));
    return value;
  }
  std::span<const std::byte> slice(uint64_t offset, uint64_t size) const {
    SY_CHECK(offset <= bytes_.size() && size <= bytes_.size() - offset, source_,
             ": the ZIP directory points past the end; the file "
             "is damaged or cut short");
    return bytes_.subspan(offset, size);
  }
  uint64_t size() const { return bytes_.size(); }
  const std::string& source() const { return source_; }

 private:
  std::span<const std::byte> bytes_;
  const std::string& source_;
};

struct Directory {
  uint64_t offset = 0, count = 0;
};

Directory find_directory(const Fields& file) {
  std::optional<uint64_t> end;
  const uint64_t lowest =
      file.size() > kEndBytes + 65535 ? file.size() - kEndBytes - 65535 : 0;  // a comment may follow
  for (uint64_t offset = file.size() >= kEndBytes ? file.size() - kEndBytes + 1 : 0; offset-- > lowest;)
    if (file.at<uint32_t>(offset) == kEnd) {
      end = offset;
      break;
    }
  SY_CHECK(end, file.source(),
           ": not a ZIP file, or cut short (PyTorch before 1.6 wrote another format: load and save it again with "
           "a newer one)");
  Directory directory{file.at<uint32_t>(*end + 16), file.at<uint16_t>(*end + 10)};
  if (*end >= kLocatorBytes && file.at<uint32_t>(*end - kLocatorBytes) == kEnd64Locator) {
    const auto end64 = file.at<uint64_t>(*end - kLocatorBytes + 8);
    SY_CHECK(file.slice(end64, kEnd64Bytes).size() == kEnd64Bytes && file.at<uint32_t>(end64) == kEnd64, file.source(),
             ": the ZIP64 directory is damaged");
    directory = {file.at<uint64_t>(end64 + 48), file.at<uint64_t>(end64 + 32)};
  }
  return directory;
}

// Takes the 8-byte fields that the ZIP64 extra holds for those that read kIn64, in the standard's order.
void read_zip64(const Fields& extra, uint64_t& size, uint64_t& stored, uint64_t& offset) {
  for (uint64_t at = 0; at + 4 <= extra.size();) {
    const uint16_t id = extra.at<uint16_t>(at), length = extra.at<uint16_t>(at + 2);
    if (id == 1) {
      uint64_t field = at + 4;
      for (uint64_t* value : {&size, &stored, &offset}) {
        if (*value != kIn64) continue;
        *value = extra.at<uint64_t>(field);
        field += 8;
      }
      return;
    }
    at += 4 + uint64_t{length};
  }
}

}  // namespace

ZipEntries list_zip_entries(std::span<const std::byte> bytes, const std::string& source) {
  const Fields file(bytes, source);
  const Directory directory = find_directory(file);
  ZipEntries entries;
  uint64_t at = directory.offset;
  for (uint64_t number = 0; number < directory.count; ++number) {
    file.slice(at, kCentralBytes);
    SY_CHECK(file.at<uint32_t>(at) == kCentralHeader, source, ": the ZIP directory is damaged at byte ", at);
    const uint16_t flags = file.at<uint16_t>(at + 8), method = file.at<uint16_t>(at + 10);
    uint64_t stored = file.at<uint32_t>(at + 20), size = file.at<uint32_t>(at + 24),
             offset = file.at<uint32_t>(at + 42);
    const uint16_t name_size = file.at<uint16_t>(at + 28), extra_size = file.at<uint16_t>(at + 30);
    const uint16_t comment_size = file.at<uint16_t>(at + 32);
    const auto name_bytes = file.slice(at + kCentralBytes, name_size);
    const std::string name(reinterpret_cast<const char*>(name_bytes.data()), name_bytes.size());
    read_zip64(Fields(file.slice(at + kCentralBytes + name_size, extra_size), source), size, stored, offset);
    SY_CHECK(method == 0 && (flags & 1) == 0 && stored == size, source, ": ", name.substr(0, 120),
             " is compressed or encrypted; PyTorch stores plainly");
    file.slice(offset, kLocalBytes);
    SY_CHECK(file.at<uint32_t>(offset) == kLocalHeader, source, ": the entry ", name.substr(0, 120), " is damaged");
    const uint64_t data = offset + kLocalBytes + file.at<uint16_t>(offset + 26) + file.at<uint16_t>(offset + 28);
    SY_CHECK(entries.emplace(name, file.slice(data, size)).second, source, ": ", name.substr(0, 120),
             " stands twice in the ZIP directory");
    at += kCentralBytes + uint64_t{name_size} + extra_size + comment_size;
  }
  return entries;
}

}  // namespace switchyard
