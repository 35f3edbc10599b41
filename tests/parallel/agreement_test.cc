#include "parallel/agreement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "parallel/texts.h"
#include "testing/ranks.h"

namespace switchyard {
namespace {

std::string disagreement(const ProcessGroup& group, const std::map<std::string, std::string>& facts) {
  try {
    check_agreement(group, facts);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Agreement, NamesRankFactAndBothValues) {
  test::across_ranks(3, [](const Launch& launch) {
    const auto world = ProcessGroup::connect(launch, {.timeout_seconds = 30.0});
    const auto rank = launch.rank;
    using testing::StartsWith;
    EXPECT_EQ(disagreement(*world, {{"build", "1"}, {"config", "steps = 3\nlayers = 2\n"}}), "");
    EXPECT_THAT(disagreement(*world, {{"build", rank == 2 ? "1.1" : "1.0"}, {"config", "same"}}),
                StartsWith("rank 2 has another build than rank 0: \"1.1\", rank 0 has \"1.0\"; start every rank"));
    EXPECT_THAT(
        disagreement(*world, {{"config", "steps = 3\nlayers = " + std::to_string(rank == 1 ? 4 : 2) + "\nend\n"}}),
        StartsWith(
            "rank 1 has another config than rank 0: line 2: \"layers = 4\", rank 0 has line 2: \"layers = 2\"; "));
    EXPECT_THAT(disagreement(*world, {{"config", rank == 0 ? "a\nb" : "a"}}),
                StartsWith("rank 1 has another config than rank 0: no line 2, rank 0 has line 2: \"b\"; "));
    EXPECT_THAT(disagreement(*world, {{rank == 1 ? "cores" : "threads", "1"}}), StartsWith("rank 1 tells other facts"));
    EXPECT_EQ(disagreement(*world, {{"empty", ""}, {"digits", "12:3"}}), "");
  });
}

TEST(Texts, ComeApartAsTheyWere) {
  const std::vector<std::string> texts = {"", "1:", "a:b", std::string(300, 'x'), ""};
  EXPECT_EQ(split_texts(join_texts(texts)), texts);
  EXPECT_TRUE(split_texts("").empty());
  for (const auto* text : {"3:ab", ":", "a:", "1", "-1:a", "99999999999999999999:"})
    EXPECT_THROW(split_texts(text), Error) << text;
}

}  // namespace
}  // namespace switchyard
