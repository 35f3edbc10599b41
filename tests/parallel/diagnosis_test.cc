#include "parallel/diagnosis.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace switchyard {
namespace {

using testing::HasSubstr;
using testing::StrEq;

const CollectivePlace kPlace = {"all-to-all", "expert-0", 12};

ObservedRank waiting(const CollectivePlace& place = kPlace) {
  return {.connected = true,
          .beat = {.count = 9, .place = place, .seconds = 30.4, .started = {{place.group, place.number}}}};
}
ObservedRank computing(int64_t number, double seconds) {
  return {.connected = true, .beat = {.count = 9, .seconds = seconds, .started = {{"expert-0", number}}}};
}

// Rank 0 of group {0, 1} asks; ranks 2 and 3 are in another one.
std::string cause(std::vector<ObservedRank> ranks) { return explain(kPlace, {0, 1}, 0, ranks); }

TEST(Diagnosis, NamesTheRankThatIsGone) {
  auto silent = waiting();
  silent.silent = true;
  silent.silent_seconds = 4.8;
  EXPECT_THAT(cause({waiting(), silent, waiting(), waiting()}),
              StrEq("rank 1 has not been heard of for 5 s (killed, stopped or cut off)"));
  EXPECT_THAT(cause({waiting(), waiting(), silent, silent}), HasSubstr("ranks 2 and 3 have not been heard of"));
  EXPECT_THAT(cause({waiting(), silent, {}, {}}), StrEq("ranks 2 and 3 have not connected"));
  // One that says nothing because it has ended is not called dead.
  silent.beat.state = Beat::State::kEnded;
  EXPECT_THAT(cause({waiting(), silent, waiting(), waiting()}),
              HasSubstr("rank 1 has ended already, without an error"));
  silent.beat.state = Beat::State::kFailed;
  EXPECT_THAT(cause({waiting(), silent, waiting(), waiting()}), StrEq("rank 1 has ended with an error of its own"));
}

TEST(Diagnosis, NamesTheRankThatIsSlow) {
  EXPECT_THAT(cause({waiting(), computing(11, 61.0), waiting(), waiting()}),
              StrEq("rank 1 is alive, but in no collective for 61 s (slow: a longer timeout lets it finish; or it "
                    "waits for something else)"));
  // Rank 1 has not come because it waits for rank 2, which waits for rank 3.
  const CollectivePlace elsewhere = {"all-reduce", "data-1", 3};
  EXPECT_THAT(
      cause({waiting(), waiting(elsewhere), waiting(elsewhere), computing(0, 8.0)}),
      StrEq(
          "rank 1 is in all-reduce 3 of group data-1 instead, for 30 s; rank 3 is alive, but in no collective for 8 s "
          "(slow: a longer timeout lets it finish; or it waits for something else)"));
}

TEST(Diagnosis, NamesTheRankThatDoesSomethingElse) {
  EXPECT_THAT(cause({waiting(), waiting({"broadcast", "expert-0", 12}), waiting(), waiting()}),
              StrEq("rank 1 is in broadcast 12 of group expert-0: the ranks do not do the same steps"));
  EXPECT_THAT(cause({waiting(), waiting(), waiting(), waiting()}), HasSubstr("the connections between them"));
  // It was here and went on: the sender of a broadcast need not wait.
  EXPECT_THAT(cause({waiting(), computing(12, 1.0), waiting(), waiting()}), HasSubstr("the connections between them"));
}

TEST(Diagnosis, ABeatIsReadAsItWasWritten) {
  const Beat beat{.count = 7,
                  .state = Beat::State::kFailed,
                  .place = {"exchange of names", "data 0", 4},
                  .seconds = 1.5,
                  .started = {{"data 0", 4}, {"world", 123456789012}}};
  const auto read = parse_beat(beat_text(beat));
  EXPECT_EQ(beat_text(read), beat_text(beat));
  EXPECT_EQ(read.started, beat.started);
  EXPECT_EQ(read.place.kind, "exchange of names");
  EXPECT_EQ(parse_beat(beat_text(Beat{})).place.kind, "");
  EXPECT_THROW(parse_beat(""), Error);
  EXPECT_THROW(parse_beat("1\n9\n0\n0\n\n\n"), Error);
}

}  // namespace
}  // namespace switchyard
