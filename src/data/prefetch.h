// Batches made ahead of their use on one thread. What is made depends on the step alone, so prefetching changes when a
// batch is made, never what it holds.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <limits>
#include <list>
#include <mutex>
#include <thread>

#include "data/example_source.h"

namespace switchyard {

struct PrefetchOptions {
  int64_t first_step = 0, end_step = std::numeric_limits<int64_t>::max();  // steps [first_step, end_step)
  int64_t first_row = 0, num_rows = -1;                                    // of every batch; -1: to its end
  size_t depth = 2;                                                        // batches that may wait
};

class BatchPrefetcher {
 public:
  // `source` outlives the prefetcher, and is asked on the prefetcher's thread only.
  explicit BatchPrefetcher(const ExampleSource& source, const PrefetchOptions& options = {});
  BatchPrefetcher(const BatchPrefetcher&) = delete;
  BatchPrefetcher& operator=(const BatchPrefetcher&) = delete;
  ~BatchPrefetcher();  // waits for a batch that is being made, no longer

  // The next step's rows; waits for them. Rethrows what the source threw for that step (and for every call after);
  // throws Error past end_step.
  Batch next();

 private:
  void run();

  const ExampleSource& source_;
  PrefetchOptions options_;
  int64_t next_step_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Batch> ready_;
  std::exception_ptr failure_;
  bool finished_ = false;  // the thread makes no more
  bool stop_ = false;
  std::thread thread_;  // last member: it starts when the others are initialised
};

}  // namespace switchyard
