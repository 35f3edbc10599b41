#include "optim/gradients.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/random.h"

namespace switchyard {
namespace {

double gradient_norm(const std::vector<at::Tensor>& gradients) {
  double total = 0.0;
  for (const auto& gradient : gradients) total += square_sum(gradient);
  return std::sqrt(total);
}

TEST(GradientNorm, IsTheEuclideanNorm) {
  EXPECT_DOUBLE_EQ(gradient_norm({at::full({2, 2}, 2.0f), at::full({1}, 3.0f), at::Tensor()}), 5.0);
  EXPECT_DOUBLE_EQ(gradient_norm({at::full({200001}, 3.0f)}), 3.0 * std::sqrt(200001.0));
  EXPECT_DOUBLE_EQ(gradient_norm({at::full({4}, 2.0f).to(at::kDouble), at::full({3}, 1.0f).t()}), std::sqrt(19.0));
  EXPECT_EQ(gradient_norm({}), 0.0);
}

TEST(GradientNorm, DoesNotOverflowOrUnderflowInFloats) {
  EXPECT_NEAR(gradient_norm({at::full({4}, 1e30f)}) / 2e30, 1.0, 1e-6);
  EXPECT_NEAR(gradient_norm({at::full({4}, 1e-30f)}) / 2e-30, 1.0, 1e-6);
}

TEST(GradientNorm, IsBitEqualForAnyNumberOfThreads) {
  NoiseStream noise({.seed = 3});
  auto gradient = at::zeros({700, 999});
  for (int64_t i = 0; i < gradient.numel(); ++i) gradient.mutable_data_ptr<float>()[i] = noise.uniform();
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const double one = gradient_norm({gradient, gradient});
  omp_set_num_threads(3);
  const double three = gradient_norm({gradient, gradient});
  omp_set_num_threads(threads);
  EXPECT_EQ(one, three);
}

TEST(FirstNonFinite, NamesTheFirst) {
  const auto fine = at::full({100000}, 1e30f);
  for (const float bad :
       {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), std::nanf("")}) {
    for (const int64_t place : {0, 65536, 99999}) {
      auto broken = at::full({100000}, 1.0f);
      broken.mutable_data_ptr<float>()[place] = bad;
      EXPECT_EQ(first_non_finite({fine, at::Tensor(), broken, broken}), std::optional<size_t>(2))
          << bad << " at " << place;
      EXPECT_FALSE(std::isfinite(gradient_norm({fine, broken})));
    }
  }
  EXPECT_EQ(first_non_finite({fine, fine}), std::nullopt);
}

TEST(ClipScale, BringsTheNormDown) {
  EXPECT_EQ(clip_scale(10.0, 0.0), 1.0);
  EXPECT_EQ(clip_scale(0.5, 1.0), 1.0);
  EXPECT_EQ(clip_scale(4.0, 1.0), 0.25);
}

}  // namespace
}  // namespace switchyard
