#include "metrics/unicode.h"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

TEST(LowerCase, IsPythons) {
  EXPECT_EQ(lower_case(std::string_view("ÀÉ Straße ЖУК İI")), "àé straße жук i̇i");
  EXPECT_EQ(lower_case(std::string_view("ΟΔΟΣ ΣΑΣ, Σ ΑΣ'Α ΑΣ.")), "οδος σας, σ ασ'α ας.");  // sigma at a word's end
  EXPECT_EQ(lower_case(std::string_view("\u212a\U00010400")), "k\U00010428");
}

TEST(Characters, AreKnownByCategory) {
  EXPECT_TRUE(is_word(U'é') && is_word(U'字') && is_word(U'٣') && is_word(U'_') && is_word(U'½'));
  EXPECT_FALSE(is_word(U'-') || is_word(U' ') || is_word(U'€') || is_word(U'\u0301'));
  EXPECT_TRUE(is_punctuation(U'„') && is_punctuation(U'。') && !is_punctuation(U'$'));
  EXPECT_TRUE(is_symbol(U'€') && is_symbol(U'+') && !is_symbol(U'.'));
  EXPECT_TRUE(is_number(U'٣') && is_number(U'Ⅷ') && !is_number(U'a'));
}

TEST(SplitWords, KnowsUnicodesWhiteSpace) {
  EXPECT_EQ(split_words(" a\u00a0b\u3000\tc\x1f"), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(split_words("\u200b"), (std::vector<std::string>{"\u200b"}));  // zero width, but no white space
  EXPECT_TRUE(split_words(" \n").empty());
  EXPECT_EQ(strip("\u2003 x y \n"), "x y");
  EXPECT_EQ(strip(" "), "");
}

TEST(SplitAt, KeepsEmptyParts) {
  EXPECT_EQ(split_at("a  b", ' '), (std::vector<std::string_view>{"a", "", "b"}));
  EXPECT_EQ(split_at("", ' '), (std::vector<std::string_view>{""}));
}

TEST(Utf8, IsReadAndWritten) {
  const std::string text = "aé字\U0001F600";
  EXPECT_EQ(encode_utf8(decode_utf8(text)), text);
  EXPECT_EQ(decode_utf8("a\xff\xe5\xad"), U"a\uFFFD\uFFFD\uFFFD");
}

}  // namespace
}  // namespace switchyard
