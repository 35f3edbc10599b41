#include "optim/muon.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/linalg_svdvals.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "testing/tensors.h"

namespace switchyard {
namespace {

at::Tensor random_tensor(at::IntArrayRef shape, uint64_t seed) {
  return test::random_tensor(shape, seed, at::kFloat, 0.3);
}

OptimizerConfig muon_config() {
  OptimizerConfig config;
  config.name = "muon";
  config.schedule = "constant";
  config.learning_rate = 0.01;
  return config;
}

double root_mean_square(const at::Tensor& tensor) { return tensor.square().mean().sqrt().item<double>(); }

TEST(Muon, SingularValuesBecomeOne) {
  for (const auto& shape : {std::vector<int64_t>{5, 9}, {64, 64}, {128, 512}, {192, 64}}) {
    const auto matrix = random_tensor(shape, 1).to(at::kDouble);
    const auto result = orthogonalized(matrix, at::kBFloat16);
    const auto values = at::linalg_svdvals(result);
    // A random matrix has singular values down to a hundredth of the largest; what begins below that ends below 0.7.
    EXPECT_LT(values.max().item<double>(), 1.25) << at::IntArrayRef(shape);
    EXPECT_GT(values.mean().item<double>(), 0.8) << at::IntArrayRef(shape);
    const auto [u, s, vh] = at::linalg_svd(matrix, /*full_matrices=*/false);
    const auto nearest = at::matmul(u, vh);
    const double alike = ((result * nearest).sum() / (result.norm() * nearest.norm())).item<double>();
    EXPECT_GT(alike, 0.97) << at::IntArrayRef(shape);
  }
}

TEST(Muon, EveryExpertIsAMatrixOfItsOwn) {
  const auto first = random_tensor({64, 128}, 1), second = random_tensor({64, 128}, 2) * 100;
  const auto together = orthogonalized(at::stack({first, second, at::zeros({64, 128})}), at::kBFloat16);
  // The products of a stack may add up in another order than those of one matrix, in bf16 (2^-8).
  EXPECT_TRUE(together[0].allclose(orthogonalized(first, at::kBFloat16), 0, 0.01));
  EXPECT_TRUE(together[1].allclose(orthogonalized(second, at::kBFloat16), 0, 0.01));
  EXPECT_EQ(together[2].abs().max().item<float>(), 0.0f);
}

TEST(Muon, AStepHasTheRateAsItsSize) {
  for (const bool scaled : {false, true}) {
    auto config = muon_config();
    config.scale_by_parameter = scaled;
    const auto weights = random_tensor({3, 64, 192}, 1) * 0.1;
    const auto before = weights.clone();
    Optimizer optimizer(config, {{.name = "w", .tensor = weights, .is_expert = true, .is_hidden_matrix = true}});
    optimizer.step_({random_tensor({3, 64, 192}, 2)}, 1);
    for (int64_t expert = 0; expert < 3; ++expert) {
      const double expected = 0.01 * (scaled ? root_mean_square(before[expert]) : 1.0);
      EXPECT_NEAR(root_mean_square(weights[expert] - before[expert]), expected, 0.3 * expected);
    }
  }
}

// Matrices of one shape, upright and lying, go through the products together.
TEST(Muon, AStepIsTheSameAloneAndBesideOthers) {
  const std::vector<std::vector<int64_t>> shapes = {{64, 64}, {64, 192}, {64, 64}, {192, 64}, {3, 64, 192}, {128, 64}};
  std::vector<at::Tensor> together, gradients;
  std::vector<OptimizedParameter> parameters;
  for (size_t n = 0; n < shapes.size(); ++n) {
    together.push_back(random_tensor(shapes[n], n + 1));
    gradients.push_back(random_tensor(shapes[n], n + 100));
    parameters.push_back({.name = "w" + std::to_string(n),
                          .tensor = together[n],
                          .is_expert = shapes[n].size() == 3,
                          .is_hidden_matrix = true});
  }
  std::vector<at::Tensor> alone;
  for (const auto& tensor : together) alone.push_back(tensor.clone());
  Optimizer all(muon_config(), parameters);
  all.step_(gradients, 1);
  for (size_t n = 0; n < shapes.size(); ++n) {
    auto parameter = parameters[n];
    parameter.tensor = alone[n];
    Optimizer one(muon_config(), {parameter});
    one.step_({gradients[n]}, 1);
    // A step of 0.01 of weights up to 0.5, whose direction is made by products in bf16.
    EXPECT_TRUE(alone[n].allclose(together[n], 0, 1e-4)) << n;
  }
}

// The step is of the gradient's momentum, not of its last value.
TEST(Muon, RemembersEarlierGradients) {
  const auto weights = random_tensor({64, 64}, 1);
  Optimizer optimizer(muon_config(), {{.name = "w", .tensor = weights, .is_hidden_matrix = true}});
  optimizer.step_({random_tensor({64, 64}, 2)}, 1);
  const auto before = weights.clone();
  optimizer.step_({at::zeros({64, 64})}, 2);
  EXPECT_GT(root_mean_square(weights - before), 1e-4);
  ASSERT_EQ(optimizer.state().size(), 1U);
  EXPECT_EQ(optimizer.state()[0].first, "w.momentum");
}

TEST(Muon, OtherParametersTakeAdafactorsStep) {
  const auto table = random_tensor({200, 130}, 1), matrix = random_tensor({64, 64}, 2);
  const auto other = table.clone();
  Optimizer muon(muon_config(),
                 {{.name = "table", .tensor = table}, {.name = "matrix", .tensor = matrix, .is_hidden_matrix = true}});
  auto config = muon_config();
  config.name = "adafactor";
  Optimizer adafactor(config, {{.name = "table", .tensor = other}});
  for (int64_t step = 1; step <= 3; ++step) {
    const auto gradient = random_tensor({200, 130}, 10 + step);
    muon.step_({gradient, random_tensor({64, 64}, 20 + step)}, step);
    adafactor.step_({gradient}, step);
  }
  EXPECT_TRUE(table.equal(other));
}

}  // namespace
}  // namespace switchyard
