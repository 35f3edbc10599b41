// What a server counts, and how Prometheus reads it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace switchyard {

// Prometheus' text, line by line.
class MetricsText {
 public:
  using Labels = std::vector<std::pair<std::string, std::string>>;  // values must need no escapes
  void describe(const std::string& name, const char* type, const std::string& help);
  void add(const std::string& name, const Labels& labels, double value);
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// Seconds by upper bound, as Prometheus' histograms. Thread-safe.
class SecondsHistogram {
 public:
  void add(double seconds);
  void write(MetricsText& text, const std::string& name, const std::string& help) const;

 private:
  static constexpr std::array<double, 12> kBounds = {0.005, 0.01, 0.025, 0.05, 0.1,  0.25,
                                                     0.5,   1.0,  2.5,   5.0,  10.0, 60.0};
  mutable std::mutex mutex_;
  std::array<int64_t, kBounds.size() + 1> counts_{};
  double sum_ = 0.0;
};

// What is so at this moment.
struct ServerNow {
  int64_t queued = 0, running = 0, rows = 0, queue = 0;
};

struct ServerStatistics {
  std::atomic<int64_t> tokens_in = 0, tokens_out = 0, cancelled = 0;
  SecondsHistogram first_token, next_token, request;

  // `path` must be one of a bounded number: each is kept.
  void count_response(const std::string& path, int status);
  std::string text(const ServerNow& now) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, int64_t> responses_;
};

}  // namespace switchyard
