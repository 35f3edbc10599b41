// pytorch_model.bin. An input that is no ZIP file is taken as the pickle of one that is otherwise well made, so that
// the pickle's machine is reached without a valid container.
#include "checkpoint/torch_archive.h"

#include "harness.h"

using namespace switchyard;

namespace {

void append(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i, value >>= 8) out.push_back(static_cast<char>(value));
}

// A ZIP file of plainly stored entries.
std::string zip_of(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string file, directory;
  for (const auto& [name, bytes] : entries) {
    const uint64_t offset = file.size();
    append(file, 0x04034b50, 4);
    append(file, 0, 14);  // version, flags, method, time, checksum
    append(file, bytes.size(), 4);
    append(file, bytes.size(), 4);
    append(file, name.size(), 2);
    append(file, 0, 2);
    file += name + bytes;
    append(directory, 0x02014b50, 4);
    append(directory, 0, 16);
    append(directory, bytes.size(), 4);
    append(directory, bytes.size(), 4);
    append(directory, name.size(), 2);
    append(directory, 0, 12);
    append(directory, offset, 4);
    directory += name;
  }
  const uint64_t start = file.size();
  file += directory;
  append(file, 0x06054b50, 4);
  append(file, 0, 4);
  append(file, entries.size(), 2);
  append(file, entries.size(), 2);
  append(file, directory.size(), 4);
  append(file, start, 4);
  append(file, 0, 2);
  return file;
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input = as_text(data, size);
  const std::string storage(96, '\1');
  const MemoryFile file(input.starts_with("PK") ? std::string(input)
                                                : zip_of({{"archive/data.pkl", std::string(input)},
                                                          {"archive/data/0", storage},
                                                          {"archive/data/1", storage.substr(0, 7)}}));
  expect_no_harm([&] {
    for (const auto& [name, tensor] : list_torch_archive(file.path())) read_tensor(tensor, at::kFloat);
  });
  return 0;
}
