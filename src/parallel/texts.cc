#include "parallel/texts.h"

#include <charconv>

#include "base/error.h"

namespace switchyard {

std::string join_texts(const std::vector<std::string>& texts) {
  std::string joined;
  for (const auto& text : texts) joined += std::to_string(text.size()) + ":" + text;
  return joined;
}

std::vector<std::string> split_texts(const std::string& joined) {
  std::vector<std::string> texts;
  const char* at = joined.data();
  const char* const end = at + joined.size();
  while (at != end) {
    size_t size = 0;
    const auto [rest, error] = std::from_chars(at, end, size);
    SY_CHECK(error == std::errc{} && rest != end && *rest == ':' && size <= static_cast<size_t>(end - rest - 1),
             "texts of ranks: expected a length, \":\" and as many bytes at byte ", at - joined.data());
    texts.emplace_back(rest + 1, size);
    at = rest + 1 + size;
  }
  return texts;
}

uint64_t checksum(const std::string& text) {
  uint64_t sum = 1469598103934665603ULL;
  for (const char letter : text) sum = (sum ^ static_cast<unsigned char>(letter)) * 1099511628211ULL;
  return sum;
}

std::string summary(const std::exception& error) {
  std::string text = error.what();
  text = text.substr(0, text.find('\n'));
  const auto place_end = text.find("] ");
  if (text.starts_with("[/") && place_end != std::string::npos) text = text.substr(place_end + 2);
  return text.substr(0, text.find(". "));
}

}  // namespace switchyard
