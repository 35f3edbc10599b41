// T5X checkpoints: the msgpack file, plain or gzipped, and the model that its arrays make.
#include "checkpoint/t5x.h"

#include "checkpoint/msgpack.h"
#include "harness.h"

using namespace switchyard;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const bool compressed = is_gzip(std::as_bytes(std::span(data, size)));
  if (compressed && size > 1 << 18) return 0;  // an array may honestly take a thousand times that
  expect_no_harm([&] {
    ByteStream bytes(std::as_bytes(std::span(data, size)), ByteStream::Form::kPlain, "input");
    read_msgpack_arrays(bytes, "input", [](const std::string&) { return true; });
  });
  const MemoryFile file(as_text(data, size));
  expect_no_harm([&] { import_t5x(file.path(), at::kFloat); });
  return 0;
}
