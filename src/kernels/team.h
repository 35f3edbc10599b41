// Threads of one parallel region that wait for each other on the way, more often than a region could end and begin.
#pragma once

#include <atomic>
#include <thread>

namespace switchyard::kernels {

class Team {
 public:
  // Returns in each of `size` threads when all of them have called it; what they wrote before is seen by all. A thread
  // that waits for long, because another has no processor, gives up its own.
  void wait(int size) {
    const unsigned phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; ++spins) {
      if (spins >= kSpins) std::this_thread::yield();
#ifdef __x86_64__
      __builtin_ia32_pause();
#endif
    }
  }

 private:
  static constexpr int kSpins = 2000;  // some 20 us
  alignas(64) std::atomic<int> arrived_ = 0;
  alignas(64) std::atomic<unsigned> phase_ = 0;
};

}  // namespace switchyard::kernels
