// Router logits: their precision, and the noise on a router's input.
#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <array>

#include "base/error.h"
#include "ops/gradient_check.h"
#include "ops/reference.h"
#include "ops/router.h"

namespace switchyard::ops {
namespace {

using test::expect_gradients_match_differences;
using test::expect_same_as_f64;
using test::random_tensor;
using test::relative_error;
using test::Tensors;

constexpr NoiseKey kKey{.seed = 9, .purpose = NoisePurpose::kRouterJitter, .step = 2, .layer = 1};

RouterInputNoise jitter(double amount, int64_t first_token = 0) {
  return {.jitter = amount, .key = kKey, .first_token = first_token};
}

TEST(RouterLogits, GradientsMatchDifferences) {
  for (const double amount : {0.0, 0.1})
    expect_gradients_match_differences(
        [&](const Tensors& in) { return router_logits(in[0], in[1], in[2], jitter(amount, 3)); },
        {random_tensor({4, 6}, 1), random_tensor({3, 6}, 2), random_tensor({3}, 3)}, 18);
}

TEST(RouterLogits, FusedMatchesF64) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const auto& [tokens, d_model, num_experts] :
         std::vector<std::array<int64_t, 3>>{{1, 1, 1}, {5, 7, 3}, {33, 130, 8}, {70, 64, 100}})
      for (const double amount : {0.0, 0.05}) {
        SCOPED_TRACE(testing::Message() << tokens << " x " << d_model << " x " << num_experts << " jitter " << amount);
        const auto weight = random_tensor({num_experts, d_model}, 2, at::kFloat),
                   bias = random_tensor({num_experts}, 3, at::kFloat);
        const auto x = random_tensor({tokens, d_model}, 1, dtype);
        expect_same_as_f64(
            [&](const Tensors& in) { return router_logits(in[0], in[1], in[2], jitter(amount, 3)); },
            [&](const Tensors& in) { return reference::router_logits(in[0], in[1], in[2], jitter(amount, 3)); },
            {x, weight, bias}, test::tolerance_of(dtype));
      }
}

TEST(RouterLogits, JitterTouchesOnlyItsOwnCopy) {
  const auto x = random_tensor({6, 8}, 1, at::kFloat), weight = random_tensor({3, 8}, 2, at::kFloat);
  const auto before = x.clone();
  const auto plain = router_logits(x, weight, {}, {});
  const auto noisy = router_logits(x, weight, {}, jitter(0.01));
  EXPECT_TRUE(x.equal(before));
  EXPECT_FALSE(noisy.equal(plain));
  EXPECT_LT((noisy - plain).abs().max().item<double>(), 0.01 * x.abs().matmul(weight.abs().t()).max().item<double>());
  EXPECT_LT(relative_error(plain, x.matmul(weight.t())), 1e-6);
  EXPECT_TRUE(router_logits(x, weight, {}, jitter(0.01)).equal(noisy));
}

TEST(RouterLogits, JitterIsAFunctionOfTheTokensNumber) {
  // The weight picks out single channels, so that logits are the jittered inputs themselves, exactly.
  constexpr int64_t kChannels = 200;
  const auto x = at::ones({10, kChannels}, at::kFloat);
  const auto weight = at::ones({kChannels, kChannels}, at::kFloat).triu().tril();
  const auto jittered = router_logits(x, weight, {}, jitter(0.5, 100));
  for (int64_t token = 0; token < 10; ++token) {
    NoiseStream stream(kKey, static_cast<uint64_t>(100 + token));
    for (int64_t channel = 0; channel < kChannels; ++channel)
      EXPECT_EQ(jittered[token][channel].item<float>(), stream.uniform() * 1.0F + 0.5F) << token << " " << channel;
  }
  EXPECT_TRUE(router_logits(x.narrow(0, 4, 3), weight, {}, jitter(0.5, 104)).equal(jittered.narrow(0, 4, 3)));
  EXPECT_GE(jittered.min().item<double>(), 0.5);
  EXPECT_LT(jittered.max().item<double>(), 1.5);
}

TEST(RouterLogits, StaysF32BelowBf16) {
  const auto x = random_tensor({4, 8}, 1, at::kBFloat16);
  const auto weight = random_tensor({2, 8}, 2, at::kFloat);
  const auto logits = router_logits(x, weight, {}, {});
  EXPECT_EQ(logits.scalar_type(), at::kFloat);
  EXPECT_LT(relative_error(logits, x.to(at::kDouble).matmul(weight.to(at::kDouble).t())), 1e-6);
}

TEST(RouterInput, DropoutScalesWhatItKeeps) {
  constexpr int64_t kChannels = 100;
  const auto x = at::ones({20, kChannels}, at::kFloat);
  const auto eye = at::ones({kChannels, kChannels}, at::kFloat).triu().tril();
  const RouterInputNoise noise{.dropout = 0.25, .key = {.seed = 2, .purpose = NoisePurpose::kRouterJitter}};
  const auto dropped = router_logits(x, eye, {}, noise);
  const double share = dropped.eq(0).to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(share, 0.25, 0.03);
  EXPECT_NEAR(dropped.max().item<double>(), 1.0 / 0.75, 1e-6);
  EXPECT_TRUE(x.equal(at::ones({20, kChannels}, at::kFloat))) << "the experts' input";
  expect_gradients_match_differences([&](const Tensors& in) { return router_logits(in[0], in[1], {}, noise); },
                                     {random_tensor({4, 6}, 1), random_tensor({3, 6}, 2)}, 18);
  EXPECT_THROW(router_logits(x, eye, {}, {.jitter = 0.1, .dropout = 0.1}), Error);
}

}  // namespace
}  // namespace switchyard::ops
