// A zarr array: the input is .zarray, and behind a zero byte the content of every chunk, whatever it is called.
#include "checkpoint/zarr.h"

#include "harness.h"

using namespace switchyard;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input = as_text(data, size);
  const size_t end = std::min(input.find('\0'), input.size());
  write_plainly(scratch_folder() / ".zarray", input.substr(0, end));
  const auto chunk =
      input.substr(std::min(end + 1, input.size()), 1 << 16);  // it may uncompress to a thousand times that
  for (const char* name : {"0", "1", "0.0", "0.1", "1.0", "1.1", "0.0.0"})
    write_plainly(scratch_folder() / name, chunk);
  expect_no_harm([&] {
    const auto array = read_zarr(scratch_folder());
    require(array.is_contiguous());
    require(array.nbytes() <= (chunk.size() + 1) * 1032 * 4);  // of up to four chunks
  });
  return 0;
}
