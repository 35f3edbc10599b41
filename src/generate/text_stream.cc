#include "generate/text_stream.h"

#include <algorithm>

namespace switchyard {
namespace {

// Bytes of whole characters: without the replacement characters and the beginning of a character at the end.
size_t whole_characters(std::string_view text) {
  constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // what pieces of bytes print as until they are complete
  while (text.ends_with(kReplacement)) text.remove_suffix(kReplacement.size());
  size_t lead = text.size();
  while (lead > 0 && text.size() - lead < 3 && (static_cast<unsigned char>(text[lead - 1]) & 0xC0) == 0x80) --lead;
  if (lead == 0) return text.size();
  const auto byte = static_cast<unsigned char>(text[lead - 1]);
  const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
  return length > text.size() - lead + 1 ? lead - 1 : text.size();
}

}  // namespace

TextStream::TextStream(const Vocabulary& vocabulary, const std::vector<std::string>& stop) : vocabulary_(vocabulary) {
  if (stop.empty()) return;
  stops_.emplace(stop, vocabulary);
  for (const auto& string : stop) held_bytes_ = std::max(held_bytes_, string.size() - 1);
}

std::string TextStream::add(int32_t id) {
  ids_.push_back(id);
  text_ = vocabulary_.decode(ids_);
  if (stops_) text_ = stops_->cut(text_);
  return told(whole_characters(std::string_view(text_).substr(0, text_.size() - std::min(text_.size(), held_bytes_))));
}

std::string TextStream::finish() { return told(text_.size()); }

std::string TextStream::told(size_t end) {
  if (end <= told_) return "";
  auto piece = text_.substr(told_, end - told_);
  told_ = end;
  return piece;
}

}  // namespace switchyard
