#include "checkpoint/experts_on_demand.h"

#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace switchyard {
namespace {

// Zeros that take no memory until they are written.
at::Tensor reserve(const std::vector<int64_t>& shape, at::ScalarType dtype) {
  size_t bytes = c10::elementSize(dtype);
  for (const int64_t size : shape) bytes *= static_cast<size_t>(size);
  void* const data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  SY_CHECK(data != MAP_FAILED, "cannot reserve ", bytes,
           " bytes of address space for a layer's experts: ", std::strerror(errno));
  return at::from_blob(
      data, shape, [bytes](void* pages) { ::munmap(pages, bytes); }, at::TensorOptions().dtype(dtype));
}

}  // namespace

ExpertsOnDemand::ExpertsOnDemand(int64_t num_experts) : is_read_(static_cast<size_t>(num_experts), false) {}

at::Tensor ExpertsOnDemand::add(const std::vector<const StoredTensor*>& experts, at::ScalarType dtype) {
  SY_CHECK(experts.size() == is_read_.size(), experts.size(), " experts, expected ", is_read_.size());
  std::vector<int64_t> shape = experts[0]->shape;
  shape.insert(shape.begin(), static_cast<int64_t>(experts.size()));
  Matrices matrices{reserve(shape, dtype), {}};
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
      for (const auto& each : matrices_)
        each.experts[static_cast<size_t>(expert)].read(0, each.stacked.select(0, expert));
    }
  });
  for (const int64_t expert : wanted) is_read_[static_cast<size_t>(expert)] = true;
}

}  // namespace switchyard
