#include "metrics/unicode.h"

#include <algorithm>
#include <iterator>

#include "metrics/unicode_tables.h"

namespace switchyard {
namespace {

using unicode_tables::kLower;
using unicode_tables::kProperties;

enum Property : uint32_t { kWord = 1, kNumber = 2, kPunctuation = 4, kSymbol = 8, kCased = 16, kCaseIgnorable = 32 };

bool has(char32_t character, Property property) {
  const auto next =
      std::upper_bound(std::begin(kProperties), std::end(kProperties), static_cast<uint32_t>(character) << 8 | 0xFF);
  return next != std::begin(kProperties) && (*std::prev(next) & property) != 0;
}

char32_t lower_character(char32_t character) {
  if (character < 0x80) return character >= 'A' && character <= 'Z' ? character + 32 : character;
  const auto run = std::lower_bound(std::begin(kLower), std::end(kLower), character,
                                    [](const auto& entry, char32_t wanted) { return entry.last < wanted; });
  if (run == std::end(kLower) || character < run->first || (character - run->first) % run->stride != 0)
    return character;
  return static_cast<char32_t>(static_cast<int32_t>(character) + run->delta);
}

// A capital sigma at a word's end: a cased character before it and none behind, case-ignorable ones skipped.
bool is_final_sigma(std::u32string_view text, size_t at) {
  size_t before = at;
  while (before > 0 && has(text[before - 1], kCaseIgnorable)) --before;
  if (before == 0 || !has(text[before - 1], kCased)) return false;
  size_t after = at + 1;
  while (after < text.size() && has(text[after], kCaseIgnorable)) ++after;
  return after == text.size() || !has(text[after], kCased);
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// Bytes of the character that begins at `at`, and the character.
std::pair<size_t, char32_t> decode_one(std::string_view text, size_t at) {
  constexpr char32_t kReplacement = 0xFFFD;
  const auto byte = [&](size_t offset) { return static_cast<unsigned char>(text[at + offset]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {1, lead};
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || at + length > text.size()) return {1, kReplacement};
  char32_t character = lead & (0xFF >> (length + 1));
  for (size_t next = 1; next < length; ++next) {
    if ((byte(next) & 0xC0) != 0x80) return {1, kReplacement};
    character = character << 6 | (byte(next) & 0x3F);
  }
  return {length, character};
}

}  // namespace

std::u32string decode_utf8(std::string_view text) {
  std::u32string characters;
  characters.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const auto [length, character] = decode_one(text, at);
    characters.push_back(character);
    at += length;
  }
  return characters;
}

void append_utf8(std::string& text, char32_t character) {
  const auto add = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (character < 0x80) {
    add(character);
  } else if (character < 0x800) {
    add(0xC0 | character >> 6);
    add(0x80 | (character & 0x3F));
  } else if (character < 0x10000) {
    add(0xE0 | character >> 12);
    add(0x80 | (character >> 6 & 0x3F));
    add(0x80 | (character & 0x3F));
  } else {
    add(0xF0 | character >> 18);
    add(0x80 | (character >> 12 & 0x3F));
    add(0x80 | (character >> 6 & 0x3F));
    add(0x80 | (character & 0x3F));
  }
}

std::string encode_utf8(std::u32string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (const char32_t character : text) append_utf8(bytes, character);
  return bytes;
}

std::u32string lower_case(std::u32string_view text) {
  constexpr char32_t kCapitalSigma = 0x3A3, kFinalSigma = 0x3C2, kCapitalDottedI = 0x130, kDotAbove = 0x307;
  std::u32string lower;
  lower.reserve(text.size());
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] == kCapitalSigma && is_final_sigma(text, at)) {
      lower.push_back(kFinalSigma);
    } else if (text[at] == kCapitalDottedI) {
      lower.push_back('i');
      lower.push_back(kDotAbove);
    } else {
      lower.push_back(lower_character(text[at]));
    }
  }
  return lower;
}

std::string lower_case(std::string_view text) {
  if (!is_ascii(text)) return encode_utf8(lower_case(decode_utf8(text)));
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(lower_character(static_cast<unsigned char>(c)));
  return lower;
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_word(char32_t character) { return character == '_' || has(character, kWord); }
bool is_number(char32_t character) { return has(character, kNumber); }
bool is_punctuation(char32_t character) { return has(character, kPunctuation); }
bool is_symbol(char32_t character) { return has(character, kSymbol); }

bool is_ascii_punctuation(char32_t c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words;
  size_t begin = 0;
  for (size_t at = 0; at <= text.size();) {
    const auto [length, character] = at < text.size() ? decode_one(text, at) : std::pair<size_t, char32_t>{1, ' '};
    if (is_white_space(character)) {
      if (at > begin) words.emplace_back(text.substr(begin, at - begin));
      begin = at + length;
    }
    at += length;
  }
  return words;
}

std::vector<std::string_view> split_at(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0;;) {
    const size_t end = text.find(separator, begin);
    parts.push_back(text.substr(begin, end == text.npos ? end : end - begin));
    if (end == text.npos) return parts;
    begin = end + 1;
  }
}

std::string join_words(const std::vector<std::string>& words, char separator) {
  std::string text;
  for (size_t n = 0; n < words.size(); ++n) {
    if (n > 0) text += separator;
    text += words[n];
  }
  return text;
}

std::string_view strip(std::string_view text) {
  size_t begin = text.size(), end = 0;
  for (size_t at = 0; at < text.size();) {
    const auto [length, character] = decode_one(text, at);
    if (!is_white_space(character)) {
      begin = std::min(begin, at);
      end = at + length;
    }
    at += length;
  }
  return begin < end ? text.substr(begin, end - begin) : std::string_view();
}

}  // namespace switchyard
