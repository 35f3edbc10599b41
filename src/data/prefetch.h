// Batches made ahead of their use on one thread. What is made depends on the step alone, so prefetching changes when a
// batch is made, never what it holds.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <limits>
#include <mutex>
#include <thread>

#include "data/batch.h"

namespace switchyard {

class BatchPrefetcher {
 public:
  // `make` is called for first_step, first_step + 1, ... below end_step, on the prefetcher's thread only; at most
  // `depth` batches wait.
  BatchPrefetcher(std::function<Batch(int64_t step)> make, int64_t first_step,
                  int64_t end_step = std::numeric_limits<int64_t>::max(), size_t depth = 2);
  BatchPrefetcher(const BatchPrefetcher&) = delete;
  BatchPrefetcher& operator=(const BatchPrefetcher&) = delete;
  ~BatchPrefetcher();  // waits for a batch that is being made, no longer

  // The next step's batch; waits for it. Rethrows what `make` threw for that step (and for every call after); throws
  // Error past end_step.
  Batch next();

 private:
  void run();

  std::function<Batch(int64_t)> make_;
  int64_t next_step_, end_step_;
  size_t depth_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Batch> ready_;
  std::exception_ptr failure_;
  bool finished_ = false;  // the thread makes no more
  bool stop_ = false;
  std::thread thread_;  // last: it starts when all else stands
};

}  // namespace switchyard
