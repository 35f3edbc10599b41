#include "base/json.h"

#include <cstdint>

#include "base/error.h"

namespace switchyard {
namespace {

constexpr int kMaxDepth = 64;
constexpr int64_t kMaxValues = int64_t{1} << 22;  // umT5's tokenizer.json, the largest of its kind, has 800,000
constexpr int64_t kMaxOrderedKeys = 20'000;

template <class Document>
Document parse(std::string_view text, const std::string& source, int64_t max_keys) {
  int64_t num_keys = 0, num_values = 0;
  const auto limit = [&](int depth, typename Document::parse_event_t event, Document&) {
    using Event = typename Document::parse_event_t;
    SY_CHECK(depth <= kMaxDepth, source, ": JSON nested deeper than ", kMaxDepth);
    num_keys += event == Event::key ? 1 : 0;
    num_values += event == Event::object_start || event == Event::array_start || event == Event::value ? 1 : 0;
    SY_CHECK(num_keys <= max_keys, source, ": JSON with more than ", max_keys, " keys");
    SY_CHECK(num_values <= kMaxValues, source, ": JSON with more than ", kMaxValues, " values");
    return true;
  };
  try {
    return Document::parse(text, limit);
  } catch (const nlohmann::json::exception& error) {
    constexpr size_t kMaxReason = 300;  // it quotes the token at fault, which may be the whole file
    const std::string_view reason = error.what();
    throw Error(join(source, ": not JSON: ", reason.substr(0, kMaxReason), reason.size() > kMaxReason ? "..." : ""));
  }
}

}  // namespace

Json parse_json(std::string_view text, const std::string& source) { return parse<Json>(text, source, kMaxOrderedKeys); }

LargeJson parse_large_json(std::string_view text, const std::string& source) {
  return parse<LargeJson>(text, source, kMaxValues);
}

}  // namespace switchyard
