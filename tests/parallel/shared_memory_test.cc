// All-to-alls through memory: what arrives, in which order it may be fetched, and that room is used again.
#include "parallel/shared_memory.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <numeric>
#include <set>

#include "base/random.h"
#include "parallel/process_group.h"
#include "testing/ranks.h"

namespace switchyard {
namespace {

using test::across_ranks;

// Message `number` from one rank to another: how many values, and the first of them; the others count up.
int64_t length(int64_t number, int64_t from, int64_t to) { return (7 * number + 3 * from + 5 * to) % 11 * 40; }
int64_t first_value(int64_t number, int64_t from, int64_t to) { return 100'000 * number + 10'000 * from + 1'000 * to; }

std::vector<int64_t> by_rank(int64_t size, const std::function<int64_t(int64_t)>& of) {
  std::vector<int64_t> result;
  for (int64_t other = 0; other < size; ++other) result.push_back(of(other));
  return result;
}

struct Flight {
  int64_t number = 0;
  at::Tensor out;
  PendingCollective pending;
};

Flight start(const ProcessGroup& group, int64_t number) {
  const auto send = by_rank(group.size(), [&](int64_t to) { return length(number, group.rank(), to); });
  const auto receive = by_rank(group.size(), [&](int64_t from) { return length(number, from, group.rank()); });
  const int64_t total = std::accumulate(send.begin(), send.end(), int64_t{0});
  // Every second one is made where it is sent from.
  const auto in = number % 2 == 0 ? group.room_to_send(total, at::kLong) : at::empty({total}, at::kLong);
  int64_t place = 0;
  for (int64_t to = 0; to < group.size(); ++to) {
    const int64_t first = first_value(number, group.rank(), to);
    in.narrow(0, place, send[to]).copy_(at::arange(first, first + send[to], at::kLong));
    place += send[to];
  }
  Flight flight{number, at::empty({std::accumulate(receive.begin(), receive.end(), int64_t{0})}, at::kLong), {}};
  flight.pending = group.start_all_to_all(flight.out, in, receive, send);
  return flight;
}

void land(const ProcessGroup& group, Flight& flight) {
  flight.pending.wait();
  int64_t place = 0;
  for (int64_t from = 0; from < group.size(); ++from) {
    const int64_t count = length(flight.number, from, group.rank());
    const int64_t first = first_value(flight.number, from, group.rank());
    EXPECT_TRUE(at::equal(flight.out.narrow(0, place, count), at::arange(first, first + count, at::kLong)))
        << "message " << flight.number << " from " << from;
    place += count;
  }
}

void exchange_many(const ProcessGroup& group) {
  NoiseStream draw({.seed = 5, .purpose = NoisePurpose::kInitialization});
  std::vector<Flight> flights;
  for (int64_t number = 0; number < 200; ++number) {
    flights.push_back(start(group, number));
    while (flights.size() > 4 || (!flights.empty() && draw.uniform() < 0.4)) {  // any of them, the same on all ranks
      const auto which = static_cast<size_t>(draw.uniform() * static_cast<double>(flights.size()));
      land(group, flights[which]);
      flights.erase(flights.begin() + static_cast<std::ptrdiff_t>(which));
    }
  }
  for (auto& flight : flights) land(group, flight);
}

TEST(SharedMemory, DeliversInAnyOrder) {
  across_ranks(3, [](const Launch& launch) {
    const auto world = ProcessGroup::connect(launch, {.timeout_seconds = 30.0});
    exchange_many(*world);
    if (launch.rank < 2) exchange_many(*world->subgroup("two", {0, 1}));
  });
}

TEST(SharedMemory, IsLeftAloneWhereOneRankHasNone) {
  across_ranks(3, [](const Launch& launch) {
    if (launch.rank == 1) {
      const rlimit limit{1 << 20, 1 << 20};
      ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
    }
    exchange_many(*ProcessGroup::connect(launch, {.timeout_seconds = 30.0}));
  });
}

TEST(SharedMemory, UsesRoomAgain) {
  across_ranks(2, [](const Launch& launch) {
    const auto world = ProcessGroup::connect(launch, {.timeout_seconds = 30.0});
    std::set<const void*> places;
    const auto out = at::empty({1000}, at::kFloat);
    for (int64_t number = 0; number < 50; ++number) {
      const auto in = world->room_to_send(1000, at::kFloat);
      places.insert(in.const_data_ptr());
      world->all_to_all(out, in.fill_(static_cast<double>(number + launch.rank)), {500, 500}, {500, 500});
      EXPECT_EQ(out[launch.rank == 0 ? 999 : 0].item<float>(), static_cast<float>(number + 1 - launch.rank));
      world->barrier();  // the other has read it
    }
    EXPECT_EQ(places.size(), 1);
  });
}

}  // namespace
}  // namespace switchyard
