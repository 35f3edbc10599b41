// Random tensors, their distance, and how far apart two ways to the same sum may end.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cmath>

#include "base/random.h"

namespace switchyard::test {

// Standard-normal-like numbers (sum of four uniforms, variance 1), the same for the same seed.
inline at::Tensor random_tensor(at::IntArrayRef sizes, uint64_t seed, at::ScalarType dtype = at::kDouble,
                                double scale = 1.0) {
  auto result = at::empty(sizes, at::kDouble);
  NoiseStream stream({.seed = seed, .purpose = NoisePurpose::kInitialization});
  double* values = result.mutable_data_ptr<double>();
  for (int64_t index = 0; index < result.numel(); ++index) {
    const double sum = stream.uniform() + stream.uniform() + stream.uniform() + stream.uniform() - 2.0;
    values[index] = sum * 1.7320508 * scale;
  }
  return result.to(dtype);
}

// ||actual - wanted|| / ||wanted||, or ||actual|| where wanted is 0.
inline double relative_error(const at::Tensor& actual, const at::Tensor& wanted) {
  const auto reference = wanted.to(at::kDouble);
  const double norm = reference.norm().item<double>();
  return (actual.to(at::kDouble) - reference).norm().item<double>() / (norm > 0 ? norm : 1.0);
}

// The one rule for relative_error of an operation on random numbers in `dtype` that sums `length` products: operands
// and result are rounded to the dtype, sums are made in f32 (f64 for f64) in any order, so that their errors add like a
// random walk; four times that, as one operation is a few roundings.
//
// Literals elsewhere are of these kinds, or say why: identities in f64 (1e-12; 1e-9 through a whole model or in
// percent), fixtures (the digits they were published with), identities in f32 of a handful of roundings (1e-6; 1e-4 for
// a sum of log-probabilities), and central differences in f64 (1e-5 relative, plus 1e-6 where the derivative is near
// 0).
inline double tolerance_of(at::ScalarType dtype, int64_t length = 64) {
  if (dtype == at::kDouble) return 1e-12;
  const double unit = dtype == at::kBFloat16 ? 0x1p-9 : 0x1p-24;
  return 4.0 * (unit + 0x1p-24 * std::sqrt(static_cast<double>(length)));
}

}  // namespace switchyard::test
