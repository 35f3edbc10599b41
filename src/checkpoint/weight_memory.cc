#include "checkpoint/weight_memory.h"

#include <ATen/ops/from_blob.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <span>

#include "base/error.h"

namespace switchyard {
namespace {

constexpr uintptr_t kHugePage = uintptr_t{1} << 21;
// Each request can split a mapping in three, and Linux gives a process 65,530 of them.
constexpr int64_t kMaxRequests = 10'000;

int64_t bytes_of(const std::vector<int64_t>& shape, at::ScalarType dtype) {
  auto bytes = static_cast<int64_t>(c10::elementSize(dtype));
  for (const int64_t size : shape) bytes *= size;
  return bytes;
}

// Those of `size` bytes that lie whole within a contiguous tensor.
std::span<std::byte> pages_within(const at::Tensor& part, uintptr_t size) {
  auto* const data = static_cast<std::byte*>(part.data_ptr());
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (begin + size - 1) / size * size;
  const uintptr_t last = (begin + part.nbytes()) / size * size;
  if (first >= last) return {};
  return {data + (first - begin), last - first};
}

}  // namespace

at::Tensor map_zeros(const std::vector<int64_t>& shape, at::ScalarType dtype) {
  const auto bytes = static_cast<size_t>(bytes_of(shape, dtype));
  void* const data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  SY_CHECK(data != MAP_FAILED, "cannot reserve ", bytes, " bytes of address space for weights: ", std::strerror(errno));
  return at::from_blob(
      data, shape, [bytes](void* pages) { ::munmap(pages, bytes); }, at::TensorOptions().dtype(dtype));
}

void prefer_huge_pages(const at::Tensor& part) {
  static std::atomic<int64_t> requests = 0;
  const auto pages = pages_within(part, kHugePage);
  if (!pages.empty() && requests.fetch_add(1) < kMaxRequests) ::madvise(pages.data(), pages.size(), MADV_HUGEPAGE);
}

void give_back(const at::Tensor& part) {
  const auto pages = pages_within(part, static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE)));
  if (!pages.empty()) ::madvise(pages.data(), pages.size(), MADV_DONTNEED);
}

WeightArena::WeightArena(int64_t bytes) : memory_(map_zeros({bytes}, at::kByte)) { prefer_huge_pages(memory_); }

at::Tensor WeightArena::take(const std::vector<int64_t>& shape, at::ScalarType dtype) {
  const int64_t bytes = bytes_of(shape, dtype);
  SY_CHECK(bytes <= memory_.size(0) - used_, "weights need ", used_ + bytes, " bytes of the ", memory_.size(0),
           " planned");
  auto* const data = static_cast<std::byte*>(memory_.mutable_data_ptr()) + used_;
  used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return at::from_blob(
      data, shape, [memory = memory_](void*) {}, at::TensorOptions().dtype(dtype));
}

}  // namespace switchyard
