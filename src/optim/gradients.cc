#include "optim/gradients.h"

#include <ATen/ops/sum.h>

#include <cmath>

#include "optim/update_kernels.h"

namespace switchyard {

double square_sum(const at::Tensor& gradient) {
  if (!gradient.defined() || gradient.numel() == 0) return 0.0;
  if (gradient.is_cpu() && gradient.is_contiguous()) {
    if (gradient.scalar_type() == at::kFloat)
      return kernels::square_sum(gradient.const_data_ptr<float>(), gradient.numel());
    if (gradient.scalar_type() == at::kBFloat16)
      return kernels::square_sum(static_cast<const kernels::BFloat16*>(gradient.const_data_ptr()), gradient.numel());
  }
  return gradient.to(at::kDouble).square().sum().item<double>();
}

std::optional<size_t> first_non_finite(const std::vector<at::Tensor>& gradients) {
  for (size_t index = 0; index < gradients.size(); ++index)
    if (!std::isfinite(square_sum(gradients[index]))) return index;
  return std::nullopt;
}

double clip_scale(double norm, double clip_norm) {
  return clip_norm > 0.0 && norm > clip_norm ? clip_norm / norm : 1.0;
}

}  // namespace switchyard
