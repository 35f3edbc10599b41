// What the other ranks say, and when, where one is killed, stopped, slow, absent, wrong or done.
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <functional>
#include <thread>

#include "base/error.h"
#include "parallel/process_group.h"
#include "testing/ranks.h"

namespace switchyard {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;

constexpr double kTimeout = 1.5, kBeat = 0.4, kMeeting = 30.0;
constexpr double kSoon = 30.0;  // a bound for a machine that does much else; where it matters the message has the time

std::unique_ptr<ProcessGroup> connect(const Launch& launch, double meeting_seconds = kMeeting) {
  return ProcessGroup::connect(
      launch, {.timeout_seconds = kTimeout, .meeting_seconds = meeting_seconds, .beat_seconds = kBeat});
}

// Collectives of the world and of a part of it, until something fails; after the third round `then` is called in each.
void work(const ProcessGroup& world, const ProcessGroup& part, const std::function<void(int64_t round)>& then) {
  const auto tensor = at::ones({50, 4});
  const std::vector<int64_t> rows(part.size(), tensor.size(0) / part.size());
  const auto in = at::ones({rows[0] * part.size(), 4}), out = at::ones_like(in);
  for (int64_t round = 0;; ++round) {
    world.all_reduce(tensor);
    part.all_to_all(out, in, rows, rows);
    if (round == 3) test::tell("works");
    if (round >= 3) then(round);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// All ranks of the world in one part, or in neighbouring pairs.
void work_in_pairs(const Launch& launch, const std::function<void(const ProcessGroup& world, int64_t round)>& then) {
  const auto world = connect(launch);
  const auto pair = launch.rank / 2;
  const auto part = world->subgroup("pair-" + std::to_string(pair), {2 * pair, 2 * pair + 1});
  work(*world, *part, [&](int64_t round) { then(*world, round); });
}

void until_it_fails(const ProcessGroup& /*world*/, int64_t /*round*/) {}

// Ranks end with code 1 and a message that has these words and their own name.
void expect_failure(test::Ranks& ranks, const std::vector<int64_t>& of, const testing::Matcher<std::string>& words) {
  for (const auto rank : of) {
    const auto end = ranks.end(rank, kSoon);
    EXPECT_TRUE(end.in_time) << "rank " << rank;
    EXPECT_EQ(end.code, 1) << "rank " << rank << ": " << end.output;
    EXPECT_THAT(end.output,
                AllOf(HasSubstr(join("rank ", rank, " of ", ranks.size(), ": ")), HasSubstr(" failed after "), words));
  }
}

TEST(Faults, AKilledRankIsNamed) {
  if (test::is_rank()) return work_in_pairs(test::rank_launch(), until_it_fails);
  test::Ranks ranks(4);
  for (int64_t rank = 0; rank < 4; ++rank) ranks.wait_for(rank, "works");
  ranks.signal(2, SIGKILL);
  expect_failure(ranks, {0, 1, 3}, HasSubstr("rank 2 has not been heard of for "));
}

TEST(Faults, AStoppedRankIsNamed) {
  if (test::is_rank()) return work_in_pairs(test::rank_launch(), until_it_fails);
  test::Ranks ranks(4);
  for (int64_t rank = 0; rank < 4; ++rank) ranks.wait_for(rank, "works");
  ranks.signal(3, SIGSTOP);
  expect_failure(ranks, {0, 1, 2}, HasSubstr("rank 3 has not been heard of for "));
  ranks.signal(3, SIGCONT);  // then it ends, too
  expect_failure(ranks, {3}, HasSubstr("of group "));
}

TEST(Faults, ASlowRankIsNamed) {
  if (test::is_rank())
    return work_in_pairs(test::rank_launch(), [](const ProcessGroup& world, int64_t) {
      if (world.rank() == 1) std::this_thread::sleep_for(std::chrono::duration<double>(2 * kTimeout));
    });
  test::Ranks ranks(2);
  expect_failure(ranks, {0, 1}, HasSubstr("rank 1 is alive, but in no collective for "));
}

TEST(Faults, TheHolderOfTheStoreIsNamed) {
  if (test::is_rank()) return work_in_pairs(test::rank_launch(), until_it_fails);
  test::Ranks killed(2), stopped(2);
  for (int64_t rank = 0; rank < 2; ++rank) {
    killed.wait_for(rank, "works");
    stopped.wait_for(rank, "works");
  }
  killed.signal(0, SIGKILL);
  stopped.signal(0, SIGSTOP);
  expect_failure(killed, {1}, HasSubstr("the store at which the ranks meet is gone: rank 0 (127.0.0.1:"));
  expect_failure(stopped, {1}, HasSubstr("the store at which the ranks meet does not answer: rank 0 (127.0.0.1:"));
}

TEST(Faults, ARankThatNeverComesIsNamed) {
  if (test::is_rank()) {
    if (test::rank_launch().rank != 1) connect(test::rank_launch(), kTimeout);
    return;
  }
  test::Ranks ranks(3);
  expect_failure(ranks, {0, 2}, AllOf(HasSubstr("meeting 1 of group world"), HasSubstr("rank 1 has not connected")));
}

TEST(Faults, WithoutAStoreThereIsNoWorld) {
  if (test::is_rank()) {
    if (test::rank_launch().rank != 0) connect(test::rank_launch(), kTimeout);
    return;
  }
  test::Ranks ranks(2);
  const auto end = ranks.end(1, kSoon);
  EXPECT_EQ(end.code, 1);
  EXPECT_THAT(end.output, HasSubstr("rank 1 of 2: rank 0 (127.0.0.1:"));
  EXPECT_THAT(end.output, HasSubstr("has not answered within 1.5 s"));
}

TEST(Faults, APortThatIsTakenIsAnError) {
  const test::TakenPort taken;
  Launch launch{.num_ranks = 2};
  launch.store_port = taken.port();
  try {
    connect(launch, kTimeout);
    FAIL() << "connected";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr(join("cannot listen at port ", taken.port())));
    EXPECT_THAT(error.what(), HasSubstr("MASTER_PORT"));
  }
}

TEST(Faults, ARankWithAnErrorOfItsOwnIsNamed) {
  if (test::is_rank())
    return work_in_pairs(test::rank_launch(),
                         [](const ProcessGroup& world, int64_t) { SY_CHECK(world.rank() != 0, "no such file"); });
  test::Ranks ranks(4);
  expect_failure(ranks, {1, 2, 3}, HasSubstr("rank 0 has ended with an error of its own"));
  EXPECT_THAT(ranks.end(0, kSoon).output, AllOf(HasSubstr("no such file"), Not(HasSubstr("failed after"))));
}

TEST(Faults, ARankThatHasEndedIsNamed) {
  if (test::is_rank()) {
    const auto world = connect(test::rank_launch());
    const auto tensor = at::ones({3});
    world->all_reduce(tensor);
    if (world->rank() != 1) world->all_reduce(tensor);
    return;
  }
  test::Ranks ranks(3);
  expect_failure(ranks, {0, 2}, AllOf(HasSubstr("all-reduce 5 of group world"), HasSubstr("rank 1 has ended already")));
  EXPECT_EQ(ranks.end(1, kSoon).code, 0);
}

TEST(Faults, ARankInAnotherCollectiveIsNamed) {
  if (test::is_rank())
    return work_in_pairs(test::rank_launch(), [](const ProcessGroup& world, int64_t) {
      if (world.rank() == 1) world.barrier();
    });
  test::Ranks ranks(2);
  expect_failure(ranks, {0}, AnyOf(HasSubstr("rank 1 is in barrier"), HasSubstr("rank 0 is in all-reduce")));
  expect_failure(ranks, {1}, HasSubstr("the ranks do not do the same steps"));
}

}  // namespace
}  // namespace switchyard
