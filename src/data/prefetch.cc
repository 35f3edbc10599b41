#include "data/prefetch.h"

#include "base/error.h"

namespace switchyard {

BatchPrefetcher::BatchPrefetcher(std::function<Batch(int64_t step)> make, int64_t first_step, int64_t end_step,
                                 size_t depth)
    : make_(std::move(make)),
      next_step_(first_step),
      end_step_(end_step),
      depth_(depth > 0 ? depth : 1),
      thread_([this] { run(); }) {}

BatchPrefetcher::~BatchPrefetcher() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void BatchPrefetcher::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || ready_.size() < depth_; });
    if (stop_ || next_step_ >= end_step_) break;
    const int64_t step = next_step_++;
    lock.unlock();
    Batch batch;
    std::exception_ptr failure;
    try {
      batch = make_(step);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    failure_ = failure;
    if (failure_) break;
    ready_.push_back(std::move(batch));
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
    throw Error(join("no batch after step ", end_step_ - 1));
  }
  Batch batch = std::move(ready_.front());
  ready_.pop_front();
  lock.unlock();
  changed_.notify_all();
  return batch;
}

}  // namespace switchyard
