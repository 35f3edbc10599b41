// Pieces of a growing text: together they are the whole text, and none is taken back.
#include "generate/text_stream.h"

#include <gtest/gtest.h>

#include "trained_vocabulary.h"

namespace switchyard {
namespace {

// The pieces for one id after the other; the last is what finish() gives.
std::vector<std::string> pieces(const std::vector<int32_t>& ids, const std::vector<std::string>& stop) {
  TextStream stream(vocabulary(), stop);
  std::vector<std::string> result;
  for (const int32_t id : ids) result.push_back(stream.add(id));
  result.push_back(stream.finish());
  return result;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const auto& part : parts) text += part;
  return text;
}

TEST(TextStream, PiecesAreTheTextAndComeAtOnce) {
  const auto ids = vocabulary().encode("a man walks into a bar");
  const auto parts = pieces(ids, {});
  EXPECT_EQ(joined(parts), vocabulary().decode(ids));
  EXPECT_EQ(parts.back(), "") << "nothing is held back";
  EXPECT_FALSE(parts.front().empty());
}

TEST(TextStream, APossibleStopStringIsHeldBack) {
  const auto ids = vocabulary().encode("a man walks into a bar");
  EXPECT_EQ(joined(pieces(ids, {"walks on", "zzz"})), vocabulary().decode(ids)) << "it did not come: all is told";
  const auto cut = pieces(ids, {"into a", "zzz"});
  EXPECT_EQ(joined(cut), "a man walks ");
  EXPECT_EQ(joined({cut.begin(), cut.end() - 1}).find("into"), std::string::npos) << "no part of it was told before";
}

TEST(TextStream, ACharacterIsToldWhole) {
  const auto ids = vocabulary().encode("a \u00fc bar");  // a character outside the vocabulary
  for (const auto& part : pieces(ids, {}))
    EXPECT_TRUE(part.empty() || (static_cast<unsigned char>(part[0]) & 0xC0) != 0x80) << part;
  EXPECT_EQ(joined(pieces(ids, {})), vocabulary().decode(ids));
}

}  // namespace
}  // namespace switchyard
