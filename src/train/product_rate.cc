#include "train/product_rate.h"

#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "base/clock.h"

namespace switchyard {
namespace {

double measure(at::ScalarType dtype) {
  constexpr int64_t kSize = 768;  // large enough for all threads, small enough for the slowest type
  constexpr double kSeconds = 0.05;
  const auto a = at::ones({kSize, kSize}, dtype), b = at::ones({kSize, kSize}, dtype);
  at::mm(a, b);  // builds its kernel
  double best = 1e30;
  for (const double begin = steady_seconds(); steady_seconds() - begin < kSeconds || best == 1e30;) {
    const double start = steady_seconds();
    at::mm(a, b);
    best = std::min(best, steady_seconds() - start);
  }
  return 2.0 * kSize * kSize * kSize / best;
}

}  // namespace

double product_rate(at::ScalarType dtype) {
  static std::mutex mutex;
  static std::map<at::ScalarType, double> rates;
  const std::lock_guard lock(mutex);
  const auto known = rates.find(dtype);
  return known != rates.end() ? known->second : rates[dtype] = measure(dtype);
}

}  // namespace switchyard
