#include "tasks/text_forms.h"

#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "metrics/unicode.h"

namespace switchyard {
namespace {

bool is_ascii_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\f' || c == '\r'; }  // RE2's \s

bool is_nonspaced(char32_t c) {
  constexpr std::array<std::pair<char32_t, char32_t>, 17> kRanges = {{{0x1000, 0x104f},    // Burmese
                                                                      {0x4e00, 0x9fff},    // CJK ideographs
                                                                      {0x3400, 0x4dbf},    // extension A
                                                                      {0xf900, 0xfaff},    // compatibility ideographs
                                                                      {0x2e80, 0x2eff},    // radicals
                                                                      {0x31c0, 0x31ef},    // strokes
                                                                      {0x3000, 0x303f},    // symbols, punctuation
                                                                      {0x3040, 0x309f},    // Hiragana
                                                                      {0x30a0, 0x30ff},    // Katakana
                                                                      {0xa980, 0xa9df},    // Javanese
                                                                      {0x1780, 0x17ff},    // Khmer
                                                                      {0x19e0, 0x19ff},    // Khmer symbols
                                                                      {0x0e80, 0x0eff},    // Lao
                                                                      {0x1980, 0x19df},    // Tai Lue
                                                                      {0x1a20, 0x1aaf},    // Tai Tham
                                                                      {0x0e00, 0x0e7f},    // Thai
                                                                      {0x0f00, 0x0fff}}};  // Tibetan
  for (const auto& [first, last] : kRanges)
    if (c >= first && c <= last) return true;
  return false;
}

}  // namespace

std::string collapse_spaces(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (const char c : text)
    if (!is_ascii_space(c))
      result += c;
    else if (result.empty() || result.back() != ' ')
      result += ' ';
  return result;
}

std::string pad_punctuation(std::string_view text) {
  std::string padded;
  padded.reserve(text.size() + text.size() / 8);
  for (const char c : text) {
    if (is_ascii_punctuation(static_cast<unsigned char>(c)))
      (padded += ' ').append(1, c) += ' ';
    else
      padded += c;
  }
  return collapse_spaces(padded);
}

std::string pad_nonspaced_languages(std::string_view text) {
  std::string padded;
  for (const char32_t c : decode_utf8(text)) {
    if (is_nonspaced(c)) padded += ' ';
    append_utf8(padded, c);
    if (is_nonspaced(c)) padded += ' ';
  }
  return collapse_spaces(padded);
}

std::string replace_all(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
  return text;
}

std::string similarity_text(double score) {
  const float rounded = std::nearbyint(static_cast<float>(score) * 5.0f) / 5.0f;
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", static_cast<double>(rounded));
  return text;
}

double parse_number(std::string_view text, double otherwise) {
  std::string digits;
  const auto stripped = strip(text);
  for (size_t n = 0; n < stripped.size(); ++n) {
    const auto is_digit_at = [&](size_t at) {
      return at < stripped.size() && std::isdigit(static_cast<unsigned char>(stripped[at])) != 0;
    };
    if (stripped[n] != '_')
      digits += stripped[n];
    else if (n == 0 || !is_digit_at(n - 1) || !is_digit_at(n + 1))
      return otherwise;  // 1_000 is a number, 1__0 is none
  }
  std::string_view number = digits;
  if (number.starts_with('+')) {
    number.remove_prefix(1);
    if (number.starts_with('-')) return otherwise;
  }
  if (number.find('(') != number.npos) return otherwise;  // nan(...), which from_chars takes
  double value = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (end != number.data() + number.size() || error == std::errc::invalid_argument) return otherwise;
  return error == std::errc() ? value : std::strtod(digits.c_str(), nullptr);  // out of range: 0 or infinity
}

}  // namespace switchyard
