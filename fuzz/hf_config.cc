// config.json, and behind a zero byte the names of the weights, one a line. A configuration that is accepted is written
// and read again as the same.
#include "checkpoint/hf_config.h"

#include "base/config.h"
#include "harness.h"

using namespace switchyard;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input = as_text(data, size);
  const std::string_view text = input.substr(0, input.find('\0'));
  std::vector<std::string> names;
  for (size_t at = text.size(); at < input.size();) {
    const size_t end = std::min(input.find('\n', at + 1), input.size());
    names.emplace_back(input.substr(at + 1, end - at - 1));
    at = end;
  }
  expect_no_harm([&] {
    const auto config = config_from_hf(parse_json(text, "input"), "input", names);
    const Json written = parse_json(config_to_hf(config, "float32").dump(), "written");
    require(fields_to_json(config_from_hf(written, "written", names)) == fields_to_json(config));
  });
  return 0;
}
