#include "text/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace switchyard {
namespace {

std::string encode(uint32_t code) {
  if (code < 0x80) return {static_cast<char>(code)};
  if (code < 0x800) return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
  if (code < 0x10000) {
    return {static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 63)),
            static_cast<char>(0x80 | (code & 63))};
  }
  return {static_cast<char>(0xF0 | code >> 18), static_cast<char>(0x80 | (code >> 12 & 63)),
          static_cast<char>(0x80 | (code >> 6 & 63)), static_cast<char>(0x80 | (code & 63))};
}

TEST(Utf8, AcceptsEveryCharacterAndRefusesSurrogates) {
  for (uint32_t code = 0; code < 0x110000; ++code) {
    const std::string text = encode(code);
    const bool surrogate = code >= 0xD800 && code < 0xE000;
    ASSERT_EQ(find_invalid_utf8(text), surrogate ? 0u : text.size()) << std::hex << code;
  }
}

TEST(Utf8, FindsTheFirstBadByte) {
  const std::string filler = "0123456789abcdef";  // longer than the step of the fast path
  for (const std::string bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xE2\x82", "\xF0\x9F\x92", "\xC3(", "\xE2\x28\xA1"}) {
    for (size_t lead = 0; lead <= filler.size(); ++lead) {
      EXPECT_EQ(find_invalid_utf8(filler.substr(0, lead) + bad + filler), lead);
      EXPECT_EQ(find_invalid_utf8(filler.substr(0, lead) + bad), lead);
    }
  }
}

TEST(Utf8, BoundariesDoNotSplitCharacters) {
  const std::string text = "a\u00e9\u20ac\U0001F917";  // 1 + 2 + 3 + 4 bytes
  const size_t expected[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10};
  for (size_t limit = 0; limit <= text.size(); ++limit) EXPECT_EQ(character_boundary(text, limit), expected[limit]);
}

}  // namespace
}  // namespace switchyard
