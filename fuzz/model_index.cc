// model.safetensors.index.json, whose files are missing: it may name them, and nothing outside its folder.
#include "checkpoint/stored_tensors.h"
#include "harness.h"

using namespace switchyard;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  write_plainly(scratch_folder() / "model.safetensors.index.json", as_text(data, size));
  expect_no_harm([&] { require(list_model_tensors(scratch_folder()).empty()); });
  return 0;
}
