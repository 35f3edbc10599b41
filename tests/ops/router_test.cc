#include "ops/router.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "ops/gradient_check.h"
#include "ops/reference.h"

namespace switchyard::ops {
namespace {

using test::evaluate;
using test::expect_gradients_match_differences;
using test::expect_same_as_f64;
using test::random_tensor;
using test::relative_error;
using test::Tensors;
using testing::ElementsAre;
using testing::ElementsAreArray;

at::Tensor table(const std::vector<std::vector<double>>& rows) {
  auto result = at::zeros({static_cast<int64_t>(rows.size()), static_cast<int64_t>(rows[0].size())}, at::kDouble);
  for (size_t row = 0; row < rows.size(); ++row)
    for (size_t column = 0; column < rows[row].size(); ++column)
      result[static_cast<int64_t>(row)][static_cast<int64_t>(column)] = rows[row][column];
  return result;
}

template <class T>
std::vector<T> values(const at::Tensor& tensor) {
  const auto flat = tensor.detach().cpu().contiguous().view({-1});
  return {flat.const_data_ptr<T>(), flat.const_data_ptr<T>() + flat.numel()};
}

// Logits whose argmax is picks[token].
at::Tensor picking(const std::vector<int64_t>& picks, int64_t num_experts) {
  auto logits = at::zeros({static_cast<int64_t>(picks.size()), num_experts}, at::kFloat);
  for (size_t token = 0; token < picks.size(); ++token) logits[static_cast<int64_t>(token)][picks[token]] = 1.0;
  return logits;
}

Routing route_groups(const at::Tensor& logits, int64_t group_size, int64_t capacity, const at::Tensor& mask = {}) {
  const auto groups = static_cast<size_t>((logits.size(0) + group_size - 1) / group_size);
  return route(logits, mask, {.group_size = group_size, .expert_capacity = std::vector<int64_t>(groups, capacity)});
}

double number(const at::Tensor& scalar) { return scalar.item<double>(); }

// Published vectors (HF test_equivalency_router_z_loss, Flaxformer test_router_z_loss).
TEST(RouterZLoss, PublishedVector) {
  const auto logits = table({{-4.2124424, 3.891939, -3.6481273, 1.8849981},
                             {0.32625437, 2.918651, 0.84758997, -4.556842},
                             {-3.32062, 4.6977115, -0.15439987, 0.44086337},
                             {3.4467149, 4.3436565, -4.7224274, -4.264637},
                             {-2.224406, -2.5318158, -1.3832569, 1.1891162},
                             {-2.320062, -0.44705987, 4.289819, -0.00662684},
                             {0.99470854, -0.6992364, 0.25503993, 4.2952085},
                             {3.5937333, -3.2408535, -4.298278, 4.426601},
                             {0.7669008, 2.6588762, 2.4505413, 4.6051874},
                             {0.23330331, -3.0845237, 0.6262374, -2.9865491},
                             {0.7595146, -2.1099675, -4.155346, -2.8326452},
                             {2.3771453, 1.004138, -3.1781673, 0.7581556}});
  EXPECT_NEAR(number(route_groups(logits, 6, 6).router_z_loss), 13.7867195288, 1e-9);
  EXPECT_NEAR(number(route_groups(logits.to(at::kFloat), 6, 6).router_z_loss), 13.786719, 2e-5);
  // Padding leaves the mean: the first six rows alone.
  const auto mask = at::arange(12, at::kLong).lt(6);
  EXPECT_NEAR(number(route_groups(logits, 12, 12, mask).router_z_loss),
              number(route_groups(logits.narrow(0, 0, 6), 6, 6).router_z_loss), 1e-12);
}

// HF test_equivalency_token_chose_masked_router; values recomputed in f64 with f32 weights.
TEST(Router, PublishedRouter) {
  const auto x = table({{0.6433916, 0.18188512, 0.02240455, 0.563781},
                        {0.5526401, 0.0958724, 0.34253013, 0.03644359},
                        {0.08744538, 0.7909105, 0.35205448, 0.53364205},
                        {0.02900076, 0.4168595, 0.5802449, 0.91486526},
                        {0.27414513, 0.14991808, 0.9383501, 0.5209162},
                        {0.51207185, 0.90618336, 0.7309413, 0.95533276}});
  const auto weight =
      table({{0.02008116, -0.00811031, -0.03542127, 0.02335377}, {0.00620062, -0.00031623, 0.02703803, -0.02971946}});
  for (const auto dtype : {at::kDouble, at::kFloat}) {
    const auto logits = router_logits(x.to(dtype), weight.to(dtype), {}, {});
    const auto expected = table({{0.50900785, 0.49099215},
                                 {0.49686596, 0.50313404},
                                 {0.5003456, 0.4996544},
                                 {0.50236665, 0.49763335},
                                 {0.49291918, 0.50708082},
                                 {0.50127337, 0.49872663}});
    EXPECT_LT((at::softmax(logits, 1) - expected).abs().max().item<double>(), 1e-7);
    const auto routing = route_groups(logits, 3, 3);
    EXPECT_THAT(values<int64_t>(routing.expert_index), ElementsAre(0, 1, 0, 0, 1, 0));
    EXPECT_NEAR(number(routing.load_balance_loss), 1.0003087348, 3e-7);
    EXPECT_NEAR(number(routing.router_z_loss), 0.4789799025, 3e-7);

    const auto tight = route_groups(logits, 3, 1);
    EXPECT_THAT(values<int64_t>(tight.expert_index), ElementsAre(0, 1, -1, 0, 1, -1));
    EXPECT_THAT(values<int64_t>(tight.dispatch.token), ElementsAre(0, 3, 1, 4));
    EXPECT_THAT(tight.dispatch.rows_by_expert(), ElementsAre(2, 2));
    const auto gate = tight.gate.to(at::kDouble);
    const double gates[] = {0.50900785, 0.50236665, 0.50313404, 0.50708082};
    for (int64_t row = 0; row < 4; ++row) EXPECT_NEAR(number(gate[row]), gates[row], 1e-7);
    EXPECT_NEAR(number(tight.load_balance_loss), 1.0003087348, 3e-7) << "f counts before capacity";
  }
}

TEST(LoadBalance, DerivedValues) {
  const auto mixed =
      at::log(table({{.34, .33, .33}, {.34, .33, .33}, {.34, .33, .33}, {1e-30, .51, .49}, {1e-30, .51, .49}}));
  EXPECT_NEAR(number(route_groups(mixed, 5, 5).load_balance_loss), 0.8496, 1e-12);
  EXPECT_NEAR(number(route_groups(at::zeros({8, 4}, at::kDouble), 8, 8).load_balance_loss), 1.0, 1e-12);
  const auto collapsed = picking({2, 2, 2, 2}, 4) * 1000.0;
  EXPECT_NEAR(number(route_groups(collapsed, 4, 1).load_balance_loss), 4.0, 1e-6);
}

// HF test_equivalency_balancy_loss: mean(f P) N^2 of picks and probabilities that do not belong together, so f is
// route()'s for the picks, and P the fixture's.
TEST(LoadBalance, PublishedVector) {
  const auto p = table({{0.35490513, 0.60419905},
                        {0.4275843, 0.23061597},
                        {0.32985854, 0.43953657},
                        {0.25099766, 0.27730572},
                        {0.7678207, 0.71474564}});
  const auto f = at::tensor(read_statistics(route_groups(picking({0, 1, 1, 0, 0}, 2), 5, 5).counts).expert_load);
  EXPECT_NEAR(number((f * p.mean(0)).sum()) * 2, 0.8741043912, 1e-7);
}

TEST(Slots, LeftToRight) {
  const auto routing = route_groups(picking({0, 0, 1, 0, 1, 0, 2, 0}, 3), 8, 2);
  EXPECT_THAT(values<int64_t>(routing.expert_index), ElementsAre(0, 0, 1, -1, 1, -1, 2, -1));
  EXPECT_THAT(values<int64_t>(routing.dispatch.token), ElementsAre(0, 1, 2, 4, 6));
  EXPECT_THAT(routing.dispatch.rows_by_expert(), ElementsAre(2, 2, 1));
  const auto statistics = read_statistics(routing.counts);
  EXPECT_DOUBLE_EQ(statistics.dropped_fraction, 3.0 / 8);
  EXPECT_THAT(statistics.expert_load, ElementsAre(5.0 / 8, 2.0 / 8, 1.0 / 8));
}

// Flaxformer routing_test.py, top-1 left to right, two groups of four, capacity 2. bf16-exact with ties, then f32.
TEST(Slots, PublishedDispatch) {
  const auto ties = table({{0.24609375, 0.25, 0.25390625, 0.251953125},
                           {0.2431640625, 0.24609375, 0.25390625, 0.2578125},
                           {0.244140625, 0.2470703125, 0.255859375, 0.25390625},
                           {0.25, 0.25, 0.251953125, 0.25},
                           {0.2470703125, 0.248046875, 0.2490234375, 0.2578125},
                           {0.2451171875, 0.248046875, 0.25390625, 0.25390625},
                           {0.2451171875, 0.24609375, 0.25390625, 0.255859375},
                           {0.2431640625, 0.248046875, 0.255859375, 0.255859375}});
  EXPECT_THAT(values<int64_t>(route_groups(at::log(ties), 4, 2).expert_index), ElementsAre(2, 3, 2, -1, 3, 2, 3, 2));
  const auto exact = table({{0.246059, 0.249899, 0.253664, 0.250378},
                            {0.242870, 0.246202, 0.253651, 0.257277},
                            {0.243758, 0.247253, 0.256000, 0.252989},
                            {0.249286, 0.249605, 0.251533, 0.249575},
                            {0.246652, 0.247032, 0.248738, 0.257579},
                            {0.245182, 0.248245, 0.252622, 0.253951},
                            {0.244858, 0.246176, 0.253033, 0.255934},
                            {0.242864, 0.247251, 0.254412, 0.255472}});
  const auto routing = route_groups(at::log(exact), 4, 2);
  EXPECT_THAT(values<int64_t>(routing.expert_index), ElementsAre(2, 3, 2, -1, 3, 3, -1, -1));
  EXPECT_NEAR(number(routing.load_balance_loss), 1.0183134, 2e-6);
}

TEST(Slots, TiesGoToTheLowestIndex) {
  for (const int64_t num_experts : {2, 8, 17, 64, 100}) {
    EXPECT_THAT(values<int64_t>(route_groups(at::zeros({3, num_experts}, at::kFloat), 3, 3).expert_index),
                ElementsAre(0, 0, 0));
    auto two = at::zeros({1, num_experts}, at::kFloat);
    two[0][num_experts - 1] = 1.0;
    two[0][num_experts / 2] = 1.0;
    EXPECT_THAT(values<int64_t>(route_groups(two, 1, 1).expert_index), ElementsAre(num_experts / 2));
  }
}

// An independent statement of the rules, token by token.
struct Expected {
  std::vector<int64_t> expert_index;
  double load_balance_loss = 0, router_z_loss = 0, entropy = 0, dropped_fraction = 0;
};
Expected expected_routing(const at::Tensor& logits, const std::vector<bool>& real, const RouteOptions& options) {
  Expected expected;
  const int64_t tokens = logits.size(0), num_experts = logits.size(1);
  expected.expert_index.assign(static_cast<size_t>(tokens), -1);
  double num_real = 0, num_dropped = 0;
  for (int64_t start = 0, group = 0; start < tokens; start += options.group_size, ++group) {
    const int64_t end = std::min(tokens, start + options.group_size);
    std::vector<double> count(static_cast<size_t>(num_experts)), probability(static_cast<size_t>(num_experts));
    double group_real = 0;
    for (int64_t token = start; token < end; ++token) {
      if (!real[static_cast<size_t>(token)]) continue;
      const auto row = values<double>(logits[token].to(at::kDouble));
      size_t best = 0;
      double sum = 0;
      for (size_t expert = 0; expert < row.size(); ++expert) {
        if (row[expert] > row[best]) best = expert;
        sum += std::exp(row[expert]);
      }
      for (size_t expert = 0; expert < row.size(); ++expert) {
        const double p = std::exp(row[expert]) / sum;
        probability[expert] += p;
        expected.entropy -= p * std::log(p);
      }
      expected.router_z_loss += std::log(sum) * std::log(sum);
      if (count[best]++ < static_cast<double>(options.expert_capacity[static_cast<size_t>(group)]))
        expected.expert_index[static_cast<size_t>(token)] = static_cast<int64_t>(best);
      else
        ++num_dropped;
      ++group_real;
    }
    num_real += group_real;
    for (size_t expert = 0; expert < count.size() && group_real > 0; ++expert)
      expected.load_balance_loss += group_real * static_cast<double>(num_experts) * (count[expert] / group_real) *
                                    (probability[expert] / group_real);
  }
  expected.load_balance_loss /= num_real;
  expected.router_z_loss /= num_real;
  expected.entropy /= num_real;
  expected.dropped_fraction = num_dropped / num_real;
  return expected;
}

// Both tokens want expert 0, which has one slot. By softmax the second is surer of it, by sigmoid the first.
TEST(Route, SigmoidScoresOrderAndBalanceByThemselves) {
  const auto logits = table({{2.0, 1.9}, {1.0, -5.0}});
  RouteOptions options{.group_size = 2, .expert_capacity = {1}, .drop_priority = DropPriority::kBatch};
  EXPECT_THAT(values<int64_t>(route(logits, {}, options).expert_index), ElementsAre(-1, 0));
  options.router_score = RouterScore::kSigmoid;
  const auto routing = route(logits, {}, options);
  EXPECT_THAT(values<int64_t>(routing.expert_index), ElementsAre(0, -1));
  const auto sigmoid = [](double logit) { return 1.0 / (1.0 + std::exp(-logit)); };
  EXPECT_NEAR(number(routing.gate[0]), sigmoid(2.0), 1e-12);
  // Both first choices are expert 0: N f P = 2 * 1 * the mean of its scores over their sums (DeepSeek-V3, eq. 18-20).
  const double p0 = sigmoid(2.0) / (sigmoid(2.0) + sigmoid(1.9)), p1 = sigmoid(1.0) / (sigmoid(1.0) + sigmoid(-5.0));
  EXPECT_NEAR(number(routing.load_balance_loss), p0 + p1, 1e-12);
  EXPECT_NEAR(read_statistics(routing.counts).router_confidence, (p0 + p1) / 2, 1e-12);
}

TEST(Route, MatchesTheRulesOverRandomShapes) {
  NoiseStream pick({.seed = 1, .purpose = NoisePurpose::kShuffle});
  for (int trial = 0; trial < 60; ++trial) {
    const auto tokens = static_cast<int64_t>(1 + pick.below(70)),
               num_experts = static_cast<int64_t>(1 + pick.below(40));
    RouteOptions options{.group_size = static_cast<int64_t>(1 + pick.below(30)), .expert_capacity = {}};
    for (int64_t start = 0; start < tokens; start += options.group_size)
      options.expert_capacity.push_back(static_cast<int64_t>(1 + pick.below(4)));
    std::vector<bool> real(static_cast<size_t>(tokens), true);
    auto mask = at::ones({tokens}, at::kBool);
    if (trial % 2 == 1)
      for (int64_t token = 1; token < tokens; ++token)
        if (pick.below(3) == 0) {
          real[static_cast<size_t>(token)] = false;
          mask[token] = false;
        }
    const auto logits = random_tensor({tokens, num_experts}, static_cast<uint64_t>(trial), at::kFloat, 2.0);
    SCOPED_TRACE(testing::Message() << "trial " << trial << " tokens " << tokens << " experts " << num_experts);
    const auto expected = expected_routing(logits, real, options);
    for (const auto dtype : {at::kFloat, at::kDouble}) {
      const double tolerance = dtype == at::kFloat ? 1e-5 : 1e-12;  // sums over up to hundreds of tokens
      const auto routing = route(logits.to(dtype), trial % 2 == 1 ? mask : at::Tensor(), options);
      EXPECT_THAT(values<int64_t>(routing.expert_index), ElementsAreArray(expected.expert_index));
      EXPECT_NEAR(number(routing.load_balance_loss), expected.load_balance_loss,
                  tolerance * expected.load_balance_loss);
      EXPECT_NEAR(number(routing.router_z_loss), expected.router_z_loss,
                  tolerance * std::max(1.0, expected.router_z_loss));
      const auto statistics = read_statistics(routing.counts);
      EXPECT_NEAR(statistics.router_entropy, expected.entropy, tolerance * 4);
      EXPECT_NEAR(statistics.dropped_fraction, expected.dropped_fraction, 1e-12);
      EXPECT_EQ(routing.gate.scalar_type(), dtype);
      const auto token = values<int64_t>(routing.dispatch.token);
      const auto num_rows = routing.dispatch.rows_by_expert();
      size_t row = 0;
      for (int64_t expert = 0; expert < num_experts; ++expert)
        for (int64_t count = 0; count < num_rows[static_cast<size_t>(expert)]; ++count, ++row) {
          EXPECT_EQ(expected.expert_index[static_cast<size_t>(token[row])], expert);
          if (count > 0) {
            EXPECT_LT(token[row - 1], token[row]) << "token order within an expert";
          }
        }
      EXPECT_EQ(row, token.size());
    }
  }
}

TEST(Route, PaddingTakesNoSlotAndItsContentDoesNotMatter) {
  const auto mask = at::tensor({1, 0, 1, 0, 1, 1}, at::kLong).to(at::kBool);
  auto logits = picking({0, 0, 0, 1, 0, 1}, 2) + random_tensor({6, 2}, 3, at::kFloat, 0.1);
  const auto routing = route_groups(logits, 6, 2, mask);
  EXPECT_THAT(values<int64_t>(routing.expert_index), ElementsAre(0, -1, 0, -1, -1, 1));
  auto other = logits.clone();
  other[1].fill_(50.0);
  other[3].fill_(-7.0);
  const auto again = route_groups(other, 6, 2, mask);
  EXPECT_TRUE(again.expert_index.equal(routing.expert_index));
  EXPECT_TRUE(again.gate.equal(routing.gate));
  EXPECT_TRUE(again.load_balance_loss.equal(routing.load_balance_loss));
  EXPECT_TRUE(again.router_z_loss.equal(routing.router_z_loss));
  EXPECT_TRUE(again.counts.sums.equal(routing.counts.sums));
  const auto [value, gradients] = evaluate(
      [&](const Tensors& in) {
        const auto result = route_groups(in[0], 6, 2, mask);
        return result.gate.sum() + result.load_balance_loss + result.router_z_loss;
      },
      {logits.to(at::kDouble)});
  EXPECT_EQ(gradients[0][1].abs().sum().item<double>() + gradients[0][3].abs().sum().item<double>(), 0.0);
}

TEST(Route, OneTokenAndNothingButPadding) {
  const auto one = route_groups(picking({1}, 3), 1024, 1);
  EXPECT_THAT(values<int64_t>(one.expert_index), ElementsAre(1));
  EXPECT_NEAR(number(one.load_balance_loss), 3 * number(one.gate[0]), 1e-6);
  const auto none = route_groups(picking({1, 0}, 3), 2, 1, at::zeros({2}, at::kBool));
  EXPECT_THAT(values<int64_t>(none.expert_index), ElementsAre(-1, -1));
  EXPECT_EQ(none.gate.numel(), 0);
  EXPECT_EQ(number(none.load_balance_loss), 0.0);
  EXPECT_EQ(number(none.router_z_loss), 0.0);
  EXPECT_EQ(read_statistics(none.counts).dropped_fraction, 0.0);
}

// Gate, balance and z-loss together, each with its own cotangent; capacities that drop, padding, a short last group.
at::Tensor routing_outputs(const at::Tensor& logits) {
  const auto mask = at::arange(13, at::kLong).remainder(5).ne(3);
  const auto routing = route_groups(logits, 6, 2, mask);
  return at::cat({routing.gate, routing.load_balance_loss.view({1}), routing.router_z_loss.view({1})});
}

TEST(Route, GradientsMatchDifferences) {
  expect_gradients_match_differences([](const Tensors& in) { return routing_outputs(in[0]); },
                                     {random_tensor({13, 5}, 8)}, 65);
}

TEST(Route, FusedGradientsMatchF64) {
  const auto call = [](const Tensors& in) { return routing_outputs(in[0]); };
  for (const int64_t num_experts : {1, 3, 8, 16, 50, 256})
    expect_same_as_f64(call, call, {random_tensor({13, num_experts}, 8, at::kFloat)}, 2e-6);
}

TEST(Route, EachLossAloneHasAGradient) {
  const auto logits = random_tensor({9, 4}, 2, at::kFloat);
  const auto gradient_of = [&](const std::function<at::Tensor(const Routing&)>& pick) {
    return evaluate([&](const Tensors& in) { return pick(route_groups(in[0], 9, 3)); }, {logits})
        .gradients[0]
        .norm()
        .item<double>();
  };
  EXPECT_GT(gradient_of([](const Routing& r) { return r.gate; }), 1e-3);
  EXPECT_GT(gradient_of([](const Routing& r) { return r.load_balance_loss; }), 1e-4);
  EXPECT_GT(gradient_of([](const Routing& r) { return r.router_z_loss; }), 1e-3);
}

TEST(Route, RefusesWhatDoesNotFit) {
  const auto logits = at::zeros({5, 2}, at::kFloat);
  EXPECT_THROW(route(logits, {}, {.group_size = 4, .expert_capacity = {2}}), Error);
  EXPECT_THROW(route(logits, {}, {.group_size = 0, .expert_capacity = {2}}), Error);
  EXPECT_THROW(route(logits, at::ones({4}, at::kBool), {.group_size = 5, .expert_capacity = {2}}), Error);
  EXPECT_THROW(route(logits.to(at::kBFloat16), {}, {.group_size = 5, .expert_capacity = {2}}), Error);
}

}  // namespace
}  // namespace switchyard::ops
