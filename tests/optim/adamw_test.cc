#include "optim/adamw.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "testing/tensors.h"

namespace switchyard {
namespace {

at::Tensor random_tensor(at::IntArrayRef shape, uint64_t seed) {
  return test::random_tensor(shape, seed, at::kFloat, 0.3);
}

OptimizerConfig adamw_config() {
  OptimizerConfig config;
  config.name = "adamw";
  config.schedule = "constant";
  config.learning_rate = 0.01;
  config.weight_decay = 0.1;
  return config;
}

TEST(AdamW, MatchesTorch) {
  for (const auto& shape : {std::vector<int64_t>{1}, {5, 3}, {3, 100, 70}}) {
    const auto weights = random_tensor(shape, 1);
    auto expected = std::vector{weights.clone()};
    auto m = std::vector{at::zeros_like(weights)}, v = std::vector{at::zeros_like(weights)};
    Optimizer optimizer(adamw_config(), {{"w", weights}});
    for (int64_t step = 1; step <= 5; ++step) {
      const auto gradient = random_tensor(shape, 10 + step);
      optimizer.step_({gradient * 4}, step, /*gradient_scale=*/0.25);
      auto gradients = std::vector{gradient.clone()};
      std::vector<at::Tensor> none, steps = {at::full({}, static_cast<float>(step))};
      at::_fused_adamw_(expected, gradients, m, v, none, steps, /*lr=*/0.01, 0.9, 0.999, /*weight_decay=*/0.1, 1e-8,
                        false, false);
    }
    EXPECT_TRUE(weights.allclose(expected[0], 2e-6, 1e-7)) << (weights - expected[0]).abs().max().item<float>();
    // A moment is a sum whose terms of order 1 may cancel: its error is their rounding, 6e-8, not its own.
    EXPECT_TRUE(optimizer.state()[0].second.allclose(m[0], 1e-5, 6e-8));
    EXPECT_TRUE(optimizer.state()[1].second.allclose(v[0], 1e-5, 1e-9));
  }
}

// f64 weights take the plain ATen path.
TEST(AdamW, ReferenceMatchesTheKernel) {
  const auto weights = random_tensor({50, 60}, 1);
  const auto reference = weights.to(at::kDouble);
  Optimizer optimizer(adamw_config(), {{"w", weights}}), plain(adamw_config(), {{"w", reference}});
  for (int64_t step = 1; step <= 5; ++step) {
    const auto gradient = random_tensor({50, 60}, 10 + step);
    optimizer.step_({gradient}, step);
    plain.step_({gradient}, step);
  }
  EXPECT_TRUE(weights.to(at::kDouble).allclose(reference, 2e-6, 1e-7));
}

// nanoT5's form: each tensor, or expert, moves by a share of its own size.
TEST(AdamW, ScaledByParameterIsTheSameStepTimesItsSize) {
  auto config = adamw_config();
  config.weight_decay = 0.0;
  const auto base = at::stack({random_tensor({50, 60}, 1), random_tensor({50, 60}, 2) * 30}), scaled = base.clone();
  const auto before = base.clone();
  Optimizer plain(config, {{.name = "w", .tensor = base, .is_expert = true}});
  config.adamw_scale_by_parameter = true;
  Optimizer other(config, {{.name = "w", .tensor = scaled, .is_expert = true}});
  const auto gradient = random_tensor({2, 50, 60}, 3);
  plain.step_({gradient}, 1);
  other.step_({gradient}, 1);
  for (int64_t expert = 0; expert < 2; ++expert) {
    const auto size = before[expert].square().mean().sqrt();
    const auto expected = (base - before)[expert] * size;
    EXPECT_TRUE((scaled - before)[expert].allclose(expected, 1e-3, 1e-6 * size.item<double>()));
  }
}

TEST(AdamW, LeavesWhatDoesNotDecay) {
  for (const char* name : {"adamw", "adafactor"}) {
    auto config = adamw_config();
    config.name = name;
    config.weight_decay = 0.5;
    const auto decayed = at::full({4}, 1.0f), kept = at::full({4}, 1.0f);
    Optimizer optimizer(config, {{.name = "w", .tensor = decayed}, {.name = "norm", .tensor = kept, .decays = false}});
    optimizer.step_({at::zeros({4}), at::zeros({4})}, 1);
    EXPECT_LT(decayed[0].item<float>(), 1.0f) << name;
    EXPECT_EQ(kept[0].item<float>(), 1.0f) << name;
  }
}

TEST(AdamW, TheFirstStepMovesByTheRate) {  // m / correction = g and v / correction = g^2: an update of sign(g)
  auto config = adamw_config();
  config.weight_decay = 0.0;
  const auto weights = at::full({4}, 1.0f);
  Optimizer optimizer(config, {{"w", weights, /*is_expert=*/false, /*rate_scale=*/3.0}});
  optimizer.step_({at::full({4}, -0.37f)}, 1);
  EXPECT_NEAR(weights[0].item<float>(), 1.03, 1e-6);
}

}  // namespace
}  // namespace switchyard
