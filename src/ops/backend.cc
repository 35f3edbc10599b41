#include "ops/backend.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "kernels/brgemm.h"

namespace switchyard::ops {
namespace {

bool reference_selected = false;

// Counts of answers, for kernel_choices() alone: no result depends on them.
std::array<std::atomic<int64_t>, 4> fused_answers{}, plain_answers{};

bool has_brgemm(at::ScalarType dtype) {
  return dtype == at::kFloat ? kernels::brgemm_available_f32() : kernels::brgemm_available_bf16();
}

bool takes(const at::Tensor& x, Kernel kernel, std::initializer_list<int64_t> sizes) {
  if (reference_selected || !x.is_cpu()) return false;
  if (x.scalar_type() != at::kFloat && x.scalar_type() != at::kBFloat16) return false;
  if ((kernel == Kernel::kTiles || kernel == Kernel::kPanels) && !has_brgemm(x.scalar_type())) return false;
  const int64_t unit = kernel == Kernel::kVectors ? 16 : kernel == Kernel::kPanels ? 64 : 1;
  return std::all_of(sizes.begin(), sizes.end(), [&](int64_t size) { return size % unit == 0; });
}

}  // namespace

void use_reference_kernels(bool reference) { reference_selected = reference; }

bool is_fused(const at::Tensor& x, Kernel kernel, std::initializer_list<int64_t> sizes) {
  const bool fused = takes(x, kernel, sizes);
  (fused ? fused_answers : plain_answers)[static_cast<size_t>(kernel)].fetch_add(1, std::memory_order_relaxed);
  return fused;
}

KernelChoices kernel_choices(Kernel kernel) {
  return {fused_answers[static_cast<size_t>(kernel)], plain_answers[static_cast<size_t>(kernel)]};
}

}  // namespace switchyard::ops
