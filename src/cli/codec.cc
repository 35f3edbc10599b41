#include "cli/codec.h"

#include <charconv>

#include "base/error.h"
#include "generate/blanks.h"

namespace switchyard {
namespace {

// "5 17 1" as ids.
std::vector<int32_t> parse_ids(std::string_view text, const std::string& place) {
  std::vector<int32_t> ids;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    if (*at == ' ' || *at == '\t' || *at == '\r') {
      ++at;
      continue;
    }
    int32_t id = 0;
    const auto [rest, error] = std::from_chars(at, end, id);
    SY_CHECK(error == std::errc() && (rest == end || *rest == ' ' || *rest == '\t' || *rest == '\r'), place,
             ": expected ids separated by spaces, got \"", text.substr(0, 60), "\"");
    ids.push_back(id);
    at = rest;
  }
  return ids;
}

}  // namespace

Codec::Codec(const std::filesystem::path& model, bool ids) {
  if (!ids) vocabulary_ = Vocabulary::load(model);
}

std::vector<int32_t> Codec::encode(std::string_view text, const std::string& place) const {
  return vocabulary_ ? vocabulary_->encode(text) : parse_ids(text, place);
}

std::vector<int32_t> Codec::encode_with_eos(std::string_view text, const std::string& place) const {
  auto ids = encode(text, place);
  if (vocabulary_) ids.push_back(vocabulary_->eos_id());
  return ids;
}

bool Codec::has_blanks(std::string_view prompt) const {
  return vocabulary_ && switchyard::has_blanks(prompt, *vocabulary_);
}

}  // namespace switchyard
