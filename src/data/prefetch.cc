#include "data/prefetch.h"

#include <algorithm>

#include "base/error.h"

namespace switchyard {

BatchPrefetcher::BatchPrefetcher(const ExampleSource& source, const PrefetchOptions& options)
    : source_(source), options_(options), next_step_(options.first_step), thread_([this] { run(); }) {}

BatchPrefetcher::~BatchPrefetcher() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void BatchPrefetcher::run() {
  const size_t depth = std::max<size_t>(1, options_.depth);
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || ready_.size() < depth; });
    if (stop_ || next_step_ >= options_.end_step) break;
    const int64_t step = next_step_++;
    lock.unlock();
    std::list<Batch> made;  // a list of one: it is spliced to those that wait, without an allocation that could fail
    std::exception_ptr failure;
    try {
      const int64_t all = source_.shape().batch_size - options_.first_row;
      made.push_back(source_.rows(step, options_.first_row, options_.num_rows < 0 ? all : options_.num_rows));
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    failure_ = failure;
    if (failure_) break;
    ready_.splice(ready_.end(), made);
    changed_.notify_all();
  }
  finished_ = true;
  changed_.notify_all();
}

Batch BatchPrefetcher::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return finished_ || !ready_.empty(); });
  if (ready_.empty()) {
    if (failure_) std::rethrow_exception(failure_);
    throw Error(join("no batch after step ", options_.end_step - 1));
  }
  Batch batch = std::move(ready_.front());
  ready_.pop_front();
  lock.unlock();
  changed_.notify_all();
  return batch;
}

}  // namespace switchyard
