// pytorch_model.bin. An input that is no ZIP file is taken as the pickle of one that is otherwise well made, so that
// the pickle's machine is reached without a valid container.
#include "checkpoint/torch_archive.h"

#include "checkpoint/zip_of.h"
#include "harness.h"

using namespace switchyard;

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
