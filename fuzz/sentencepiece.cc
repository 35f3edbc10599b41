// spiece.model: one that is accepted encodes and decodes any text.
#include "harness.h"
#include "text/vocabulary.h"

using namespace switchyard;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  expect_no_harm([&] {
    const auto vocabulary = Vocabulary::from_bytes(std::string(as_text(data, size)), 3, "input");
    std::vector<int32_t> ids;
    for (int32_t id = -1; id <= std::min(vocabulary.size(), 300); ++id) ids.push_back(id);
    expect_no_harm([&] { vocabulary.decode(ids); });
    for (const std::string text : {"a quick<extra_id_1>brown \u00e9\uff21 fox <extra_id_7>", "\xff\xfe", ""})
      expect_no_harm([&] {
        for (const int32_t id : vocabulary.encode(text)) require(id >= 0 && id < vocabulary.size());
      });
  });
  return 0;
}
