// Blanks filled in, and stop strings, with a vocabulary trained on the spot.
#include "generate/blanks.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "generate/stop_strings.h"
#include "trained_vocabulary.h"

namespace switchyard {
namespace {

std::string fill(const std::string& prompt, const std::string& output) {
  auto ids = vocabulary().encode(output);
  ids.push_back(vocabulary().eos_id());
  return fill_blanks(prompt, ids, vocabulary());
}

TEST(Blanks, AreReplacedByTheSpansOfTheOutput) {
  EXPECT_EQ(fill("A <extra_id_0> walks into a <extra_id_1>.", "<extra_id_0> man<extra_id_1> bar<extra_id_2>"),
            "A man walks into a bar.");
  EXPECT_EQ(fill("A <extra_id_1> walks <extra_id_0>", "<extra_id_0> into a bar<extra_id_1> human"),
            "A human walks into a bar")
      << "by number";
  EXPECT_EQ(fill("un<extra_id_0>able", "<extra_id_0>believ<extra_id_1>"), "unbelievable");
  EXPECT_EQ(fill("Zürich <extra_id_0> walks", "<extra_id_0> man<extra_id_1>"), "Zürich man walks")
      << "letters without a piece stay";
}

TEST(Blanks, WhatTheOutputLacksStays) {
  EXPECT_EQ(fill("A <extra_id_0> and <extra_id_1>", "<extra_id_0> man"), "A man and <extra_id_1>");
  EXPECT_EQ(fill("A <extra_id_0>", ""), "A <extra_id_0>");
  EXPECT_EQ(fill("A <extra_id_0> walks", "<extra_id_0><extra_id_1>"), "A walks")
      << "an empty span takes a space with it";
  EXPECT_EQ(fill("A <extra_id_0>.", "<extra_id_0> man<extra_id_1> bar<extra_id_0> beer"), "A man.")
      << "the first of a repeated one";
  EXPECT_EQ(fill("a < b, <extra_id_>, <extra_id_100>, <extra_id_00>", "<extra_id_0> man"),
            "a < b, <extra_id_>, <extra_id_100>, <extra_id_00>");
}

TEST(Blanks, AreRecognised) {
  EXPECT_TRUE(has_blanks("<extra_id_0>", vocabulary()));
  EXPECT_TRUE(has_blanks("a<extra_id_99>b", vocabulary()));
  EXPECT_FALSE(has_blanks("a <extra_id_100> <extra_id_-1> <extra_id_ 1> <extra_id_1", vocabulary()));
  EXPECT_FALSE(has_blanks("", vocabulary()));
}

TEST(StopStrings, EndTheOutputAndAreCutOff) {
  const StopStrings stops({"bar", " a b"}, vocabulary());
  EXPECT_TRUE(stops.contained_in(vocabulary().encode("walks into a bar")));
  EXPECT_TRUE(stops.contained_in(vocabulary().encode("into a b")));
  EXPECT_FALSE(stops.contained_in(vocabulary().encode("walks into")));
  EXPECT_EQ(stops.cut("into a bar and"), "into");
  EXPECT_EQ(stops.cut("walks"), "walks");
  EXPECT_THROW(StopStrings({""}, vocabulary()), Error);
}

}  // namespace
}  // namespace switchyard
