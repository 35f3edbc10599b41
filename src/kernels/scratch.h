// Aligned working memory of a kernel call, and what keeps a lack of it an exception.
#pragma once

#include <omp.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <new>

namespace switchyard::kernels {

// `size` elements on a 64-byte boundary, not initialised.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t size)
      : data_(static_cast<T*>(::operator new (sizeof(T) * static_cast<size_t>(size), std::align_val_t{64}))) {}
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* data) const { ::operator delete (data, std::align_val_t{64}); }
  };
  std::unique_ptr<T, Free> data_;
};

// The same for each thread of a parallel region. Made before the region, which an exception cannot leave.
template <class T>
class ThreadScratch {
 public:
  explicit ThreadScratch(int64_t size)
      : stride_((size + kUnit - 1) / kUnit * kUnit), all_(stride_ * omp_get_max_threads()) {}
  T* data() { return all_.data() + stride_ * omp_get_thread_num(); }  // the calling thread's

 private:
  static constexpr int64_t kUnit = 64 / sizeof(T);
  int64_t stride_;
  Scratch<T> all_;
};

// Carries an exception of a parallel region's threads out of it: each piece of work goes through run(), and after the
// region rethrow() throws the first of what was caught. The result is then undefined.
class RegionErrors {
 public:
  template <class Work>
  void run(Work&& work) noexcept {
    try {
      work();
    } catch (...) {
      const std::scoped_lock lock(mutex_);
      if (!first_) first_ = std::current_exception();
    }
  }
  void rethrow() const {
    if (first_) std::rethrow_exception(first_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr first_;
};

}  // namespace switchyard::kernels
