#include "generate/stop_strings.h"

#include <algorithm>

#include "base/error.h"

namespace switchyard {

StopStrings::StopStrings(std::vector<std::string> strings, Vocabulary vocabulary)
    : strings_(std::move(strings)), vocabulary_(std::move(vocabulary)) {
  for (const auto& string : strings_) {
    SY_CHECK(!string.empty(), "stop string: expected some text, got an empty one");
    longest_ = std::max(longest_, string.size());
  }
}

bool StopStrings::contained_in(std::span<const int32_t> output) const {
  if (strings_.empty()) return false;
  // A new match ends in the last token, and no token but pad and EOS is empty: so many tokens hold the longest string,
  // with one more for the space that decoding drops in front.
  const auto tail = output.last(std::min(output.size(), longest_ + 1));
  const auto text = vocabulary_.decode(tail);
  return cut(text).size() < text.size();
}

std::string_view StopStrings::cut(std::string_view text) const {
  size_t end = text.size();
  for (const auto& string : strings_) end = std::min(end, text.find(string));
  return text.substr(0, end);
}

}  // namespace switchyard
