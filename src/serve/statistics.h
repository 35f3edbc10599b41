// What a server counts, and how Prometheus reads it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace switchyard {

// Seconds by upper bound, as Prometheus' histograms. Thread-safe.
class SecondsHistogram {
 public:
  void add(double seconds);
  std::string text(const std::string& name, const std::string& help) const;

 private:
  static constexpr std::array<double, 12> kBounds = {0.005, 0.01, 0.025, 0.05, 0.1,  0.25,
                                                     0.5,   1.0,  2.5,   5.0,  10.0, 60.0};
  mutable std::mutex mutex_;
  std::array<int64_t, kBounds.size() + 1> counts_{};
  double sum_ = 0.0;
};

struct ServerStatistics {
  std::atomic<int64_t> tokens_in = 0, tokens_out = 0, cancelled = 0;
  SecondsHistogram first_token, next_token, request;

  void count_response(const std::string& path, int status);
  // The text of /metrics; what is so now comes from the engine.
  std::string text(int64_t queued, int64_t running, int64_t rows) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, int64_t> responses_;
};

}  // namespace switchyard
