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

int free_port();

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
  // `store_port`: of a store that the caller holds, as torchrun's agent does; 0: rank 0 holds it.
  explicit Ranks(int64_t num_ranks, int store_port = 0);
  ~Ranks();
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  int64_t size() const { return static_cast<int64_t>(pids_.size()); }
  void start(int64_t rank);  // again, one that has ended
  void signal(int64_t rank, int number) const;
  // Until the rank has created the file `name` in its folder, see tell().
  void wait_for(int64_t rank, const std::string& name) const;
  RankEnd end(int64_t rank, double seconds);

 private:
  ScratchFolder folder_;
  int port_ = 0;
  bool agent_ = false;
  int64_t num_ranks_ = 0;
  std::vector<pid_t> pids_;
  double started_at_ = 0.0;
};

// By a rank: lets wait_for() of the test return.
void tell(const std::string& name);

// The body as each of the ranks; fails with the output of those that fail or do not end within 60 s.
void across_ranks(int64_t num_ranks, const std::function<void(const Launch&)>& body);

}  // namespace switchyard::test
