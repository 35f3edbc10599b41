// What single options of a router mean, on numbers that can be followed by hand.
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "ops/gradient_check.h"
#include "ops/router.h"

namespace switchyard::ops {
namespace {

using test::expect_gradients_match_differences;
using test::random_tensor;
using test::Tensors;

TEST(SampledSoftmax, DrawsByProbabilityAndKeepsTheirGates) {
  const auto p = at::tensor({0.5, 0.3, 0.2}, at::kDouble);
  RouteOptions options;
  options.sample_temperature = 1.0;
  options.noise = {.seed = 1, .purpose = NoisePurpose::kExploration};
  options.group_size = 30000;
  options.expert_capacity = {30000};
  const auto routing = route(p.log().expand({30000, 3}).contiguous(), {}, options);
  for (int64_t expert = 0; expert < 3; ++expert)
    EXPECT_NEAR(static_cast<double>(routing.dispatch.rows_by_expert()[static_cast<size_t>(expert)]) / 30000.0,
                p[expert].item<double>(), 0.012);
  EXPECT_NEAR(routing.gate.min().item<double>(), 0.2, 1e-9);
}

// The largest uniform, 1 - 2^-24, is drawn for expert 3 by this token: its noise is 17.3, and not infinite.
TEST(SampledSoftmax, TheLargestNoiseIsFinite) {
  RouteOptions options;
  options.sample_temperature = 1.0;
  options.noise = {.seed = 1, .purpose = NoisePurpose::kExploration};
  options.first_token = 6316676;
  NoiseStream stream(options.noise, static_cast<uint64_t>(options.first_token));
  for (int64_t expert = 0; expert < 3; ++expert) stream.uniform();
  ASSERT_EQ(stream.uniform(), 1.0F - 0x1p-24F);
  options.group_size = 1;
  options.expert_capacity = {1};
  auto logits = at::zeros({1, 8}, at::kFloat);
  for (const auto& [logit, wins] : {std::pair{-50.0, false}, std::pair{-5.0, true}}) {
    logits[0][3] = logit;
    EXPECT_EQ(route(logits, {}, options).expert_index[0].item<int64_t>() == 3, wins) << "logit " << logit;
  }
}

TEST(SelectionBias, MovesChoicesButNotGates) {
  RouteOptions options;
  options.router_score = RouterScore::kSigmoid;
  options.group_size = 2;
  options.expert_capacity = {2};
  options.selection_bias = at::tensor({0.0, 0.3}, at::kFloat);
  const auto logits = at::tensor({0.5, 0.0, 3.0, 0.0}, at::kDouble).view({2, 2});
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const auto routing = route(logits.to(dtype), {}, options);
    // sigmoid(0.5) = 0.622 < 0.5 + 0.3; sigmoid(3) = 0.953 > 0.8
    EXPECT_EQ(routing.expert_index[0].item<int64_t>(), 1);
    EXPECT_EQ(routing.expert_index[1].item<int64_t>(), 0);
    EXPECT_NEAR(routing.gate[0].item<double>(), 0.9525741, 1e-6);
    EXPECT_NEAR(routing.gate[1].item<double>(), 0.5, 1e-6);
  }
}

// HF chooses by probabilities rounded to bf16, where near ties fall to the lowest index.
TEST(SelectionDtype, RoundedProbabilitiesTie) {
  RouteOptions options;
  options.group_size = 1;
  options.expert_capacity = {1};
  const auto logits = at::tensor({0.0F, 1e-4F}, at::kFloat).view({1, 2});
  EXPECT_EQ(route(logits, {}, options).expert_index.item<int64_t>(), 1);
  options.selection_dtype = at::kBFloat16;
  EXPECT_EQ(route(logits, {}, options).expert_index.item<int64_t>(), 0);
}

TEST(HashRouting, GatesAreOneAndLossesZero) {
  RouteOptions options;
  options.group_size = 6;
  options.expert_capacity = {2};
  const auto routing = route_to(at::tensor({1, 1, 0, 1, 2, 0}, at::kLong), 3, {}, options, at::kFloat);
  EXPECT_EQ(routing.dispatch.rows_by_expert(), (std::vector<int64_t>{2, 2, 1}));
  EXPECT_EQ(routing.expert_index[3].item<int64_t>(), -1);
  EXPECT_TRUE(routing.gate.equal(at::ones({5}, at::kFloat)));
  EXPECT_EQ(routing.load_balance_loss.item<double>(), 0.0);
}

TEST(HashRouting, RefusesOtherExpertsAndProbabilitiesItHasNot) {
  RouteOptions options;
  options.group_size = 2;
  options.expert_capacity = {2};
  const auto to = [&](int64_t expert) {
    return route_to(at::tensor({int64_t{0}, expert}), 3, {}, options, at::kFloat);
  };
  EXPECT_NO_THROW(to(2));
  EXPECT_THROW(to(3), Error);
  EXPECT_THROW(to(-1), Error);
  for (const auto priority : {DropPriority::kBatch, DropPriority::kExpert}) {
    options.drop_priority = priority;
    EXPECT_THROW(to(2), Error);
  }
}

TEST(LoadLoss, IsTheSpreadOfTheChanceToWin) {
  // Two tokens, two experts, std 1: P(e wins) = Phi(logit - best logit).
  const auto logits = at::tensor({1.0, 0.0, 2.0, 0.5}, at::kDouble).view({2, 2});
  const auto phi = [](double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); };
  const double load[] = {1.0, phi(-1.0) + phi(-1.5)};  // Phi(0) = 0.5 each
  const double mean = (load[0] + load[1]) / 2, spread = (load[0] - load[1]) / 2;
  EXPECT_NEAR(load_loss(logits, {}, 1, 1.0).item<double>(), spread * spread / (mean * mean), 1e-8);
  expect_gradients_match_differences([](const Tensors& in) { return load_loss(in[0], {}, 2, 0.5); },
                                     {random_tensor({6, 4}, 3)}, 24, 1e-6);
}

TEST(ImportanceLoss, IsTheSquaredCoefficientOfVariation) {
  RouteOptions options;
  options.group_size = 2;
  options.expert_capacity = {2};
  const auto p = at::tensor({0.9, 0.1, 0.7, 0.3}, at::kDouble).view({2, 2});
  // Importances 1.6 and 0.4: mean 1, variance 0.36.
  EXPECT_NEAR(route(p.log(), {}, options).importance_loss.item<double>(), 0.36, 1e-12);
}

TEST(ExpertsOfTokens, ListsThemByFallingGate) {
  RouteOptions options;
  options.num_selected_experts = 2;
  options.group_size = 3;
  options.expert_capacity = {2};
  const auto p = at::tensor({0.1, 0.3, 0.6, 0.5, 0.4, 0.1, 0.2, 0.35, 0.45}, at::kDouble).view({3, 3});
  const auto experts = experts_of_tokens(route(p.log(), {}, options), 3, 2);
  EXPECT_TRUE(experts.equal(at::tensor({2, 1, 0, 1, 2, -1}, at::kLong).view({3, 2}))) << experts;
}

}  // namespace
}  // namespace switchyard::ops
