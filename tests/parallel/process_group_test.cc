#include "parallel/process_group.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "base/error.h"
#include "testing/ranks.h"

namespace switchyard {
namespace {

using test::across_ranks;

GroupOptions patient() { return {.timeout_seconds = 30.0}; }

// Rows that rank `from` sends to rank `to`: none for some, 2 to 7 for others.
int64_t rows_between(int64_t from, int64_t to) { return (from + 2 * to) % 3 == 1 ? 0 : 2 + (3 * from + to) % 6; }
// What every element of row `row` of that is.
double row_value(int64_t from, int64_t to, int64_t row) { return 50.0 * from + 10.0 * to + row; }

void check_all_to_all(const ProcessGroup& group, at::ScalarType type, bool silent_rank) {
  const auto rows = [&](int64_t from, int64_t to) { return silent_rank && from == 1 ? 0 : rows_between(from, to); };
  std::vector<int64_t> send, receive;
  for (int64_t rank = 0; rank < group.size(); ++rank) {
    send.push_back(rows(group.rank(), rank));
    receive.push_back(rows(rank, group.rank()));
  }
  const auto sum = [](const std::vector<int64_t>& values) {
    return std::accumulate(values.begin(), values.end(), int64_t{0});
  };
  const auto in = at::zeros({sum(send), 5}, type), out = at::zeros({sum(receive), 5}, type), expected = out.clone();
  int64_t at = 0;
  for (int64_t to = 0; to < group.size(); ++to)
    for (int64_t row = 0; row < send[to]; ++row) in[at++].fill_(row_value(group.rank(), to, row));
  at = 0;
  for (int64_t from = 0; from < group.size(); ++from)
    for (int64_t row = 0; row < receive[from]; ++row) expected[at++].fill_(row_value(from, group.rank(), row));
  const auto before = group.wire_bytes().all_to_all;
  group.all_to_all(out, in, receive, send);
  EXPECT_TRUE(at::equal(out, expected)) << out << expected;
  const auto away = sum(send) - send[group.rank()];
  EXPECT_EQ(group.wire_bytes().all_to_all - before, away * 5 * static_cast<int64_t>(in.itemsize()));
  group.all_to_all(out.zero_(), in, receive, send);  // the counts are still the caller's
  EXPECT_TRUE(at::equal(out, expected));
}

TEST(ProcessGroup, SumsInEveryType) {
  across_ranks(3, [](const Launch& launch) {
    const auto world = ProcessGroup::connect(launch, patient());
    EXPECT_EQ(world->rank(), launch.rank);
    EXPECT_EQ(world->size(), 3);
    for (const auto type : {at::kFloat, at::kDouble, at::kLong, at::kBFloat16}) {
      for (const int64_t numel : {1, 7, 1000, 0}) {
        const auto values = at::arange(numel, at::kDouble).remainder(11).add(1);
        const auto tensor = values.mul(static_cast<double>(launch.rank + 1)).to(type);
        const auto largest = tensor.clone();
        world->all_reduce(tensor);
        world->all_reduce_max(largest);
        EXPECT_TRUE(at::equal(tensor, values.mul(6).to(type))) << type << " " << numel;
        EXPECT_TRUE(at::equal(largest, values.mul(3).to(type))) << type << " " << numel;
      }
    }
    // Two sums and two maxima of 8-byte values 1 and 7 and 1000 numbers, and so on: 4/3 of each tensor's bytes.
    int64_t expected = 0;
    for (const int64_t bytes : {4, 8, 8, 2})
      for (const int64_t numel : {1, 7, 1000}) expected += 2 * (4 * bytes * numel / 3);
    EXPECT_EQ(world->wire_bytes().all_reduce, expected);
  });
}

TEST(ProcessGroup, SendsUnequalRows) {
  across_ranks(4, [](const Launch& launch) {
    const auto world = ProcessGroup::connect(launch, patient());
    for (const auto type : {at::kFloat, at::kBFloat16, at::kLong, at::kDouble, at::kInt, at::kByte})
      check_all_to_all(*world, type, false);
    check_all_to_all(*world, at::kFloat, true);
  });
}

TEST(ProcessGroup, SendsUnequalRowsWithoutSharedMemory) {
  across_ranks(4, [](const Launch& launch) {
    const auto world = ProcessGroup::connect(launch, {.timeout_seconds = 30.0, .shares_memory = false});
    for (const auto type : {at::kFloat, at::kBFloat16, at::kLong}) check_all_to_all(*world, type, false);
    check_all_to_all(*world, at::kFloat, true);
  });
}

TEST(ProcessGroup, PartsOfItWorkSideBySide) {
  across_ranks(4, [](const Launch& launch) {
    const auto world = ProcessGroup::connect(launch, patient());
    const auto parity = launch.rank % 2;
    const auto half = world->subgroup(parity == 0 ? "even" : "odd", {parity, parity + 2});
    EXPECT_EQ(half->rank(), launch.rank / 2);
    EXPECT_EQ(half->world_rank(1), parity + 2);
    const auto alone = half->subgroup("alone-" + std::to_string(launch.rank), {half->rank()});
    EXPECT_EQ(alone->size(), 1);
    EXPECT_EQ(alone->world_rank(0), launch.rank);

    const auto of_half = at::full({3}, static_cast<double>(launch.rank)), of_world = of_half.clone(),
               of_one = of_half.clone();
    auto pending = half->start_all_reduce(of_half);
    world->all_reduce(of_world);
    alone->all_reduce(of_one);
    pending.wait();
    pending.wait();
    EXPECT_EQ(of_half[2].item<float>(), parity == 0 ? 2.0F : 4.0F);
    EXPECT_EQ(of_world[2].item<float>(), 6.0F);
    EXPECT_EQ(of_one[2].item<float>(), launch.rank);
    check_all_to_all(*half, at::kFloat, false);
    check_all_to_all(*alone, at::kFloat, false);
    EXPECT_EQ(world->gather_text("names", std::to_string(launch.rank)), (std::vector<std::string>{"0", "1", "2", "3"}));
    EXPECT_EQ(half->gather_text("names", std::to_string(launch.rank)),
              (std::vector<std::string>{std::to_string(parity), std::to_string(parity + 2)}));
    // The same name again: what was said then is not said now.
    EXPECT_EQ(half->gather_text("names", "x"), (std::vector<std::string>{"x", "x"}));
    world->barrier();
  });
}

TEST(ProcessGroup, BroadcastsFromAnyRank) {
  across_ranks(3, [](const Launch& launch) {
    const auto world = ProcessGroup::connect(launch, patient());
    for (int64_t root = 0; root < 3; ++root) {
      const auto tensor = at::full({5}, static_cast<double>(launch.rank));
      world->broadcast(tensor, root);
      EXPECT_TRUE(at::equal(tensor, at::full({5}, static_cast<double>(root))));
      world->broadcast(at::zeros({0}), root);
    }
    EXPECT_EQ(world->wire_bytes().broadcast, 2 * 5 * 4);
  });
}

TEST(ProcessGroup, KeepsManyCollectivesInFlight) {
  across_ranks(2, [](const Launch& launch) {
    const auto world = ProcessGroup::connect(launch, patient());
    std::vector<at::Tensor> sums;
    std::vector<PendingCollective> pending;
    for (int64_t number = 0; number < 12; ++number) {
      sums.push_back(at::full({1000 + 17 * number}, static_cast<double>(number + launch.rank)));
      pending.push_back(world->start_all_reduce(sums.back()));
      const auto in = at::full({3, 2}, static_cast<double>(launch.rank)), out = at::zeros({3, 2});
      const int64_t mine = launch.rank == 0 ? 1 : 2;
      pending.push_back(world->start_all_to_all(out, in, {mine, 3 - mine}, {mine, 3 - mine}));
    }
    for (auto& collective : pending) collective.wait();
    for (int64_t number = 0; number < 12; ++number)
      EXPECT_TRUE(at::equal(sums[number], at::full_like(sums[number], 2.0 * number + 1)));
  });
}

TEST(ProcessGroup, OfOneRankNeedsNobody) {
  const auto world = ProcessGroup::connect(Launch{});
  const auto tensor = at::full({4}, 3.0);
  world->all_reduce(tensor);
  world->all_reduce_max(tensor);
  world->broadcast(tensor, 0);
  world->barrier();
  EXPECT_TRUE(at::equal(tensor, at::full({4}, 3.0)));
  const auto out = at::zeros({4});
  world->all_to_all(out, tensor, {4}, {4});
  EXPECT_TRUE(at::equal(out, tensor));
  EXPECT_EQ(world->subgroup("part", {0})->size(), 1);
  EXPECT_EQ(world->gather_text("name", "me"), std::vector<std::string>{"me"});
  EXPECT_EQ(world->wire_bytes().all_reduce + world->wire_bytes().all_to_all + world->wire_bytes().broadcast, 0);
}

TEST(ProcessGroup, RefusesWhatItCannotSend) {
  const auto world = ProcessGroup::connect(Launch{});
  const auto wide = at::zeros({4, 6});
  EXPECT_THROW(world->all_reduce(wide.t()), Error);
  EXPECT_THROW(world->all_reduce(at::zeros({2}, at::kInt)), Error);
  EXPECT_THROW(world->broadcast(wide, 1), Error);
  EXPECT_THROW(world->all_to_all(wide, at::zeros({4, 5}), {4}, {4}), Error);
  EXPECT_THROW(world->all_to_all(wide, wide, {3}, {4}), Error);
  EXPECT_THROW(world->all_to_all(wide, wide, {4, 0}, {4, 0}), Error);
  EXPECT_THROW(world->subgroup("other", {0, 1}), Error);
  EXPECT_THROW(world->subgroup("world", {0}), Error);
  EXPECT_THROW(ProcessGroup::connect(Launch{.num_ranks = 2}, {.device = at::kCUDA}), Error);
}

}  // namespace
}  // namespace switchyard
