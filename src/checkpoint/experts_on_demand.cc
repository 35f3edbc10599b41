#include "checkpoint/experts_on_demand.h"

#include <ATen/Parallel.h>

#include "base/error.h"
#include "checkpoint/weight_memory.h"

namespace switchyard {
ExpertsOnDemand::ExpertsOnDemand(int64_t num_experts) : is_read_(static_cast<size_t>(num_experts), false) {}

at::Tensor ExpertsOnDemand::add(const std::vector<const StoredTensor*>& experts, at::ScalarType dtype) {
  SY_CHECK(experts.size() == is_read_.size(), experts.size(), " experts, expected ", is_read_.size());
  std::vector<int64_t> shape = experts[0]->shape;
  shape.insert(shape.begin(), static_cast<int64_t>(experts.size()));
  Matrices matrices{map_zeros(shape, dtype), {}};
  for (const StoredTensor* expert : experts) matrices.experts.push_back(*expert);
  matrices_.push_back(std::move(matrices));
  return matrices_.back().stacked;
}

void ExpertsOnDemand::read(const std::vector<int64_t>& num_rows) {
  SY_CHECK(num_rows.size() == is_read_.size(), num_rows.size(), " row counts for ", is_read_.size(), " experts");
  const std::lock_guard lock(mutex_);
  std::vector<int64_t> wanted;
  for (size_t expert = 0; expert < num_rows.size(); ++expert)
    if (num_rows[expert] > 0 && !is_read_[expert]) wanted.push_back(static_cast<int64_t>(expert));
  at::parallel_for(0, static_cast<int64_t>(wanted.size()), /*grain_size=*/1, [&](int64_t begin, int64_t end) {
    for (int64_t number = begin; number < end; ++number) {
      const int64_t expert = wanted[static_cast<size_t>(number)];
      for (const auto& each : matrices_) {
        const auto matrix = each.stacked.select(0, expert);
        prefer_huge_pages(matrix);
        each.experts[static_cast<size_t>(expert)].read(0, matrix);
      }
    }
  });
  for (const int64_t expert : wanted) is_read_[static_cast<size_t>(expert)] = true;
}

}  // namespace switchyard
