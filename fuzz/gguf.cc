// A GGUF file: every tensor lies inside the file and none over another, and a model that it makes can be read.
#include "checkpoint/gguf_header.h"
#include "checkpoint/gguf_model.h"
#include "harness.h"

using namespace switchyard;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const MemoryFile file(as_text(data, size));
  expect_no_harm([&] {
    const InputFile input(file.path());
    uint64_t end = 0;
    for (const auto& tensor : read_gguf_header(input, "input").tensors) {
      require(tensor.offset >= end);
      end = tensor.offset + tensor.bytes;
      const auto& form = gguf_form(tensor.type);
      uint64_t numel = 1;
      for (const int64_t length : tensor.shape) numel *= static_cast<uint64_t>(length);
      require(tensor.bytes * static_cast<uint64_t>(form.block_values) ==
              numel * static_cast<uint64_t>(form.block_bytes));
    }
    require(end <= size);
  });
  expect_no_harm([&] {
    const auto model = open_gguf(file.path());
    for (const auto& values : parameter_values(model.files))
      for (const auto& stored : values) read_tensor(stored, at::kFloat);
    require(model.vocabulary.tokens.size() == model.vocabulary.types.size());
  });
  return 0;
}
