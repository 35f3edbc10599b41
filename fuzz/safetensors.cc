// model.safetensors: every tensor lies where its header says, inside the file.
#include "checkpoint/safetensors.h"

#include <cstring>

#include "harness.h"

using namespace switchyard;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  expect_no_harm([&] {
    const auto header = parse_safetensors(std::as_bytes(std::span(data, size)), "input");
    uint64_t end = header.data_offset;
    for (const auto& entry : header.entries) {
      require(header.data_offset + entry.begin == end);
      end = header.data_offset + entry.end;
      uint64_t bytes = c10::elementSize(entry.dtype);
      for (const int64_t length : entry.shape) bytes *= static_cast<uint64_t>(length);
      require(entry.end - entry.begin == bytes);
    }
    require(end == size);
  });
  const MemoryFile file(as_text(data, size));
  expect_no_harm([&] {
    const auto mapped = read_safetensors(file.path()).tensors;
    for (const auto& [name, stored] : list_safetensors(file.path())) {
      const auto read = read_tensor(stored, stored.dtype);
      const auto& view = mapped.at(name);
      require(read.sizes() == view.sizes() && read.nbytes() == view.nbytes());
      require(read.nbytes() == 0 || std::memcmp(read.const_data_ptr(), view.const_data_ptr(), read.nbytes()) == 0);
    }
  });
  expect_no_harm([&] {
    for (const auto& [name, stored] : list_safetensors(file.path())) read_tensor(stored, at::kFloat);
  });
  return 0;
}
