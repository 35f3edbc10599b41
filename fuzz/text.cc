// Text files: plain or JSON Lines by name, plain, gzip or zstd by content. What is read is UTF-8, in documents of
// bounded length.
#include "harness.h"
#include "text/reader.h"
#include "text/utf8.h"

using namespace switchyard;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kEnough = size_t{1} << 22;  // a small file may uncompress to a thousand times its size
  const MemoryFile file(as_text(data, size));
  for (const char* name : {"input.txt", "input.jsonl", "input.gz"}) {
    const auto path = scratch_folder() / name;
    std::filesystem::remove(path);
    std::filesystem::create_symlink(file.path(), path);
    expect_no_harm([&] {
      TextReader reader({path}, TextReader::EmptyText::kAllowed);
      size_t total = 0;
      while (total < kEnough) {
        const auto document = reader.next_document();
        if (!document) break;
        require(!document->empty() && find_invalid_utf8(*document) == document->size());
        require(document->size() <= TextReader::kMaxJsonLineBytes);
        total += document->size();
      }
    });
  }
  return 0;
}
