// Experts that are read from files when a routing first sends them rows: a model of a trillion parameters opens at
// once, and takes memory for the experts that it used.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <mutex>
#include <vector>

#include "checkpoint/stored_tensor.h"

namespace switchyard {

// One sparse layer's experts.
class ExpertsOnDemand {
 public:
  explicit ExpertsOnDemand(int64_t num_experts);

  // A new tensor [num_experts, ...] of `dtype` whose expert E will be `experts[E]`. It takes address space, not memory,
  // and reads as 0 until then. Throws Error if the system refuses.
  at::Tensor add(const std::vector<const StoredTensor*>& experts, at::ScalarType dtype);

  // Reads the experts with rows that were not read yet. num_rows [num_experts]. Any thread may call it. Throws Error if
  // a file was changed since it was opened; what was read stays.
  void read(const std::vector<int64_t>& num_rows);

 private:
  struct Matrices {
    at::Tensor stacked;
    std::vector<StoredTensor> experts;
  };
  std::vector<Matrices> matrices_;
  std::vector<bool> is_read_;
  std::mutex mutex_;
};

}  // namespace switchyard
