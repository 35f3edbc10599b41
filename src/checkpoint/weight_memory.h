// Memory of weights in inference: written once, read at every token. Mapped apart from the heap, so that it can lie in
// huge pages: one thread reads those 1.5 times as fast as small ones (31 and 21 GB/s, Zen 5 in a virtual machine).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace switchyard {

// A tensor of zeros that takes address space, and memory only where it is written. Throws Error if the system refuses.
at::Tensor map_zeros(const std::vector<int64_t>& shape, at::ScalarType dtype);

// Asks for huge pages wherever one lies whole within `part`, which is to be written soon: no memory beyond `part` is
// taken. A request, which a system may ignore.
void prefer_huge_pages(const at::Tensor& part);

// Gives the memory of the pages that lie whole within `part` of map_zeros() back; its values are lost.
void give_back(const at::Tensor& part);

// Tensors side by side in one mapping.
class WeightArena {
 public:
  explicit WeightArena(int64_t bytes);  // for all tensors, each rounded up to kAlignment
  // New, of undefined content, alive as long as it is used. Throws Error beyond `bytes`.
  at::Tensor take(const std::vector<int64_t>& shape, at::ScalarType dtype);

  static constexpr int64_t kAlignment = 64;

 private:
  at::Tensor memory_;  // [bytes] u8
  int64_t used_ = 0;
};

}  // namespace switchyard
