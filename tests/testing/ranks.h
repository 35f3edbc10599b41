// Tests of several ranks: the test program starts itself again, once a rank, with the variables of a launcher.
//
//   TEST(ProcessGroup, AddsUp) {
//     test::across_ranks(4, [](const Launch& launch) { ...; EXPECT_EQ(...); });
//   }
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "parallel/launch.h"
#include "testing/scratch_folder.h"

namespace switchyard::test {

// A port of loopback at which somebody listens.
class TakenPort {
 public:
  TakenPort();
  TakenPort(const TakenPort&) = delete;
  TakenPort& operator=(const TakenPort&) = delete;
  ~TakenPort();
  int port() const;

 private:
  int socket_;
};

// Whether this process is a rank that a test has started, rather than the test program itself.
bool is_rank();
Launch rank_launch();  // of such a process

struct RankEnd {
  bool in_time = false;
  int code = -1;         // 128 + n: ended by signal n
  double seconds = 0.0;  // since the ranks were started
  std::string output;
};

// Processes that run the current test as ranks. Those that still run when this goes are killed.
class Ranks {
 public:
  explicit Ranks(int64_t num_ranks);
  ~Ranks();
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  int64_t size() const { return static_cast<int64_t>(pids_.size()); }
  void signal(int64_t rank, int number) const;
  // Until the rank has created the file `name` in its folder, see tell().
  void wait_for(int64_t rank, const std::string& name) const;
  RankEnd end(int64_t rank, double seconds);

 private:
  void start(int64_t rank);

  ScratchFolder folder_;
  int port_ = 0;
  int64_t num_ranks_ = 0;
  std::vector<pid_t> pids_;
  double started_at_ = 0.0;
};

// By a rank: lets wait_for() of the test return.
void tell(const std::string& name);

// The body as each of the ranks; fails with the output of those that fail or do not end within 60 s.
void across_ranks(int64_t num_ranks, const std::function<void(const Launch&)>& body);

}  // namespace switchyard::test
