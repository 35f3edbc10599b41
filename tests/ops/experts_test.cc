#include "ops/experts.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <numeric>

#include "base/error.h"
#include "ops/gradient_check.h"
#include "ops/reference.h"
#include "ops/router.h"

namespace switchyard::ops {
namespace {

using test::evaluate;
using test::expect_gradients_match_differences;
using test::expect_same_as_f64;
using test::random_tensor;
using test::relative_error;
using test::Tensors;
using test::tolerance_of;

constexpr NoiseKey kKey{.seed = 3, .purpose = NoisePurpose::kExpertDropout, .step = 1, .layer = 2};

// Token t goes to expert_of[t]; -1: nowhere.
Dispatch dispatch_to(const std::vector<int64_t>& expert_of, int64_t num_experts, int64_t first_token = 6) {
  std::vector<int64_t> tokens, num_rows;
  for (int64_t expert = 0; expert < num_experts; ++expert) {
    const size_t before = tokens.size();
    for (size_t token = 0; token < expert_of.size(); ++token)
      if (expert_of[token] == expert) tokens.push_back(static_cast<int64_t>(token));
    num_rows.push_back(static_cast<int64_t>(tokens.size() - before));
  }
  return make_dispatch(at::tensor(tokens, at::kLong), num_rows, first_token);
}

Dispatch random_dispatch(int64_t tokens, int64_t num_experts, uint64_t seed) {
  NoiseStream pick({.seed = seed, .purpose = NoisePurpose::kShuffle});
  std::vector<int64_t> expert_of;
  for (int64_t token = 0; token < tokens; ++token)
    expert_of.push_back(static_cast<int64_t>(pick.below(static_cast<uint64_t>(num_experts) + 1)) - 1);
  return dispatch_to(expert_of, num_experts);
}

struct Case {
  Activation activation = Activation::kRelu;
  bool gated = false;
  double dropout_rate = 0.0;
};

class Experts : public testing::TestWithParam<Case> {
 protected:
  // in: x, gate, wi, wo and, if gated, wi_1.
  static at::Tensor run(const Tensors& in, const Dispatch& dispatch, bool plain = false) {
    const ExpertsOptions options{
        .activation = GetParam().activation, .dropout_rate = GetParam().dropout_rate, .key = kKey};
    const auto wi_1 = GetParam().gated ? in[4] : at::Tensor();
    if (!plain) return experts_feed_forward(in[0], in[1], dispatch, in[2], wi_1, in[3], options);
    const auto rows = reference::dispatch_rows(in[0], dispatch);
    return reference::combine_rows(reference::expert_rows(rows, dispatch, in[2], wi_1, in[3], options), in[1], dispatch,
                                   in[0].size(0));
  }
  static Tensors inputs(int64_t tokens, int64_t rows, int64_t num_experts, int64_t d_model, int64_t d_ff,
                        at::ScalarType dtype) {
    const auto gate_dtype = dtype == at::kDouble ? at::kDouble : at::kFloat;
    Tensors all = {random_tensor({tokens, d_model}, 1, dtype), random_tensor({rows}, 2, gate_dtype).abs() + 0.1,
                   random_tensor({num_experts, d_ff, d_model}, 3, dtype, 0.4),
                   random_tensor({num_experts, d_model, d_ff}, 4, dtype, 0.4)};
    if (GetParam().gated) all.push_back(random_tensor({num_experts, d_ff, d_model}, 5, dtype, 0.4));
    return all;
  }
};

TEST_P(Experts, GradientsMatchDifferences) {
  const auto dispatch = dispatch_to({1, 0, -1, 1, 3, 1, 0}, 4);
  expect_gradients_match_differences([&](const Tensors& in) { return run(in, dispatch); },
                                     inputs(7, 6, 4, 3, 5, at::kDouble), 20, 1e-6);
}

TEST_P(Experts, FusedMatchesTheReferenceOverShapes) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const auto& [tokens, num_experts, d_model, d_ff] : std::vector<std::array<int64_t, 4>>{{1, 1, 1, 1},
                                                                                                {9, 4, 8, 16},
                                                                                                {40, 3, 33, 70},
                                                                                                {200, 5, 64, 96},
                                                                                                {20, 40, 16, 32},
                                                                                                {700, 5, 64, 128},
                                                                                                {30, 9, 128, 64}}) {
      SCOPED_TRACE(testing::Message() << toString(dtype) << " " << tokens << " " << num_experts << " " << d_model << " "
                                      << d_ff);
      auto dispatch = random_dispatch(tokens, num_experts, 5);
      if (dispatch.num_rows() == 0) dispatch = dispatch_to({0}, 1);
      expect_same_as_f64([&](const Tensors& in) { return run(in, dispatch); },
                         [&](const Tensors& in) { return run(in, dispatch, /*plain=*/true); },
                         inputs(tokens, dispatch.num_rows(), num_experts, d_model, d_ff, dtype),
                         2 * tolerance_of(dtype));
    }
}

TEST_P(Experts, WithoutGradientGivesTheSameValue) {
  const auto dispatch = random_dispatch(30, 6, 2);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto in = inputs(30, dispatch.num_rows(), 6, 24, 40, dtype);
    const auto with = evaluate([&](const Tensors& leaves) { return run(leaves, dispatch); }, in).value;
    EXPECT_LE(relative_error(run(in, dispatch), with), tolerance_of(dtype));
  }
}

TEST_P(Experts, DroppedTokensGiveExactlyZero) {
  const auto dispatch = dispatch_to({0, -1, 1, -1, 0}, 2);
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto in = inputs(5, 3, 2, 16, 32, dtype);
    const auto [y, gradients] = evaluate([&](const Tensors& leaves) { return run(leaves, dispatch); }, in);
    for (const int64_t token : {1, 3}) {
      EXPECT_EQ(y[token].abs().sum().item<double>(), 0.0);
      EXPECT_EQ(gradients[0][token].abs().sum().item<double>(), 0.0);
    }
    EXPECT_GT(y[0].abs().sum().item<double>(), 0.0);
  }
}

TEST_P(Experts, PermutingExpertsPermutesNothingElse) {
  const std::vector<int64_t> expert_of = {2, 0, 1, 2, 2, 0, -1, 1};
  const std::vector<int64_t> order = {2, 0, 1};  // new expert e is old expert order[e]
  std::vector<int64_t> renamed;
  for (const int64_t expert : expert_of)
    renamed.push_back(expert < 0 ? -1 : std::find(order.begin(), order.end(), expert) - order.begin());
  const auto dispatch = dispatch_to(expert_of, 3), moved_dispatch = dispatch_to(renamed, 3);
  auto in = inputs(8, 7, 3, 8, 12, at::kBFloat16);
  // One gate a token, so that it follows its token to the new row.
  const auto token_gate = random_tensor({8}, 9, at::kFloat).abs();
  in[1] = token_gate.index_select(0, dispatch.token);
  auto moved = in;
  moved[1] = token_gate.index_select(0, moved_dispatch.token);
  const auto index = at::tensor(order, at::kLong);
  for (size_t weight = 2; weight < moved.size(); ++weight) moved[weight] = in[weight].index_select(0, index);
  EXPECT_TRUE(run(moved, moved_dispatch).equal(run(in, dispatch)));
}

TEST_P(Experts, AnExpertWithoutRowsHasZeroGradient) {
  const auto dispatch = dispatch_to({0, 2, 2}, 3);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto evaluation =
        evaluate([&](const Tensors& leaves) { return run(leaves, dispatch); }, inputs(3, 3, 3, 8, 8, dtype));
    for (size_t weight = 2; weight < evaluation.gradients.size(); ++weight) {
      EXPECT_EQ(evaluation.gradients[weight][1].abs().sum().item<double>(), 0.0);
      EXPECT_GT(evaluation.gradients[weight][2].abs().sum().item<double>(), 0.0);
    }
  }
}

TEST_P(Experts, NoRowsAtAll) {
  const auto dispatch = dispatch_to({-1, -1}, 2);
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto evaluation =
        evaluate([&](const Tensors& leaves) { return run(leaves, dispatch); }, inputs(2, 0, 2, 8, 8, dtype));
    EXPECT_EQ(evaluation.value.abs().sum().item<double>(), 0.0);
    for (const auto& gradient : evaluation.gradients) EXPECT_EQ(gradient.abs().sum().item<double>(), 0.0);
  }
}

// A token may have several rows (top-k): its outputs add up.
TEST_P(Experts, SeveralRowsOfATokenAddUp) {
  const auto both = make_dispatch(at::tensor({0, 1, 0}, at::kLong), {2, 1}, 6);
  const auto first = make_dispatch(at::tensor({0, 1}, at::kLong), {2, 0}, 6);
  const auto second = make_dispatch(at::tensor({0}, at::kLong), {0, 1}, 6);
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto in = inputs(2, 3, 2, 16, 8, dtype);
    auto in_first = in, in_second = in;
    in_first[1] = in[1].narrow(0, 0, 2);
    in_second[1] = in[1].narrow(0, 2, 1);
    EXPECT_LE(
        relative_error(run(in, both), run(in_first, first).to(at::kDouble) + run(in_second, second).to(at::kDouble)),
        tolerance_of(dtype));
    expect_same_as_f64([&](const Tensors& leaves) { return run(leaves, both); },
                       [&](const Tensors& leaves) { return run(leaves, both, /*plain=*/true); }, in,
                       2 * tolerance_of(dtype));
  }
}

TEST_P(Experts, DropoutFollowsTheTokensNumber) {
  if (GetParam().dropout_rate == 0.0) GTEST_SKIP() << "case without dropout";
  const auto in = inputs(4, 4, 1, 16, 64, at::kFloat);
  auto tail = in;
  tail[0] = in[0].narrow(0, 2, 2);
  tail[1] = in[1].narrow(0, 2, 2);
  const auto whole = run(in, dispatch_to({0, 0, 0, 0}, 1, 10));
  // 1e-5: other row counts may take other products, and another number's noise is 1e-2 away.
  EXPECT_LT(relative_error(run(tail, dispatch_to({0, 0}, 1, 12)), whole.narrow(0, 2, 2)), 1e-5);
  EXPECT_GT(relative_error(run(tail, dispatch_to({0, 0}, 1, 10)), whole.narrow(0, 2, 2)), 1e-2);
}

// An exchange that sends rows away in another order, as another rank would hold them: experts see what is sent, tokens
// get what is theirs.
struct ReversedExperts final : TokenExchange {
  explicit ReversedExperts(const Dispatch& dispatch) {
    const auto num_rows = dispatch.rows_by_expert();
    int64_t start = 0;
    std::vector<at::Tensor> runs;
    for (const int64_t count : num_rows) {
      runs.insert(runs.begin(), at::arange(start, start + count, at::kLong));
      start += count;
    }
    order = at::cat(runs);
    back = at::empty_like(order);
    back.scatter_(0, order, at::arange(start, at::kLong));
    reversed_rows.assign(num_rows.rbegin(), num_rows.rend());
  }
  RowsAtExperts to_experts(const at::Tensor& rows, const Dispatch& dispatch) const override {
    auto there = make_dispatch(dispatch.token.index_select(0, order), reversed_rows);
    there.number = dispatch.number.index_select(0, order);
    return {rows.index_select(0, order), there};
  }
  at::Tensor to_tokens(const at::Tensor& rows, const RowsAtExperts&) const override {
    return rows.index_select(0, back);
  }
  at::Tensor order, back;
  std::vector<int64_t> reversed_rows;
};

TEST_P(Experts, AnExchangeChangesNothingButThePlace) {
  const auto dispatch = random_dispatch(30, 4, 9);
  const auto in = inputs(30, dispatch.num_rows(), 4, 16, 32, at::kFloat);
  const ReversedExperts exchange(dispatch);
  const ExpertsOptions options{
      .activation = GetParam().activation, .dropout_rate = GetParam().dropout_rate, .key = kKey};
  const auto flip = [](const at::Tensor& weight) { return weight.flip(0).contiguous(); };
  const auto here = evaluate([&](const Tensors& leaves) { return run(leaves, dispatch); }, in);
  const auto there = evaluate(
      [&](const Tensors& leaves) {
        return experts_feed_forward(leaves[0], leaves[1], dispatch, flip(leaves[2]),
                                    GetParam().gated ? flip(leaves[4]) : at::Tensor(), flip(leaves[3]), options,
                                    &exchange);
      },
      in);
  EXPECT_TRUE(here.value.equal(there.value));
  for (size_t n = 0; n < in.size(); ++n) EXPECT_TRUE(here.gradients[n].equal(there.gradients[n])) << n;
}

INSTANTIATE_TEST_SUITE_P(All, Experts,
                         testing::Values(Case{}, Case{.dropout_rate = 0.3}, Case{Activation::kGeluNew, true, 0.0},
                                         Case{Activation::kSilu, true, 0.2}, Case{Activation::kGelu, false, 0.0}),
                         [](const auto& test) {
                           return std::string(to_word(test.param.activation)) + (test.param.gated ? "_gated" : "") +
                                  (test.param.dropout_rate > 0 ? "_dropout" : "");
                         });

// Router and experts as one function: the router learns through the gate and the balance loss.
TEST(SwitchLayer, GradientsMatchDifferences) {
  const auto layer = [](const Tensors& in) {
    const auto logits = router_logits(in[0], in[1], {}, {});
    const auto routing = route(logits, {}, {.group_size = 6, .expert_capacity = {2, 2}});
    EXPECT_GT(read_statistics(routing.counts).dropped_fraction, 0.0);
    return experts_feed_forward(in[0], routing.gate, routing.dispatch, in[2], {}, in[3], {}) +
           routing.load_balance_loss;
  };
  expect_gradients_match_differences(
      layer,
      {random_tensor({11, 4}, 1), random_tensor({3, 4}, 2), random_tensor({3, 6, 4}, 3), random_tensor({3, 4, 6}, 4)},
      24, 1e-6);
}

// One expert with room for everyone is the dense layer scaled by a gate of exactly 1.
TEST(SwitchLayer, OneExpertIsTheDenseLayer) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto x = random_tensor({12, 16}, 1, dtype), wi = random_tensor({1, 32, 16}, 2, dtype),
               wo = random_tensor({1, 16, 32}, 3, dtype);
    const auto logits = router_logits(x, at::zeros({1, 16}, dtype == at::kDouble ? at::kDouble : at::kFloat), {}, {});
    const auto routing = route(logits, {}, {.group_size = 12, .expert_capacity = {12}});
    const auto sparse = experts_feed_forward(x, routing.gate, routing.dispatch, wi, {}, wo, {});
    const auto dense = feed_forward(x.unsqueeze(0), wi[0], {}, wo[0], {}).squeeze(0);
    EXPECT_LE(relative_error(sparse, dense), tolerance_of(dtype));
  }
}

TEST(ExpertsChecks, RefuseWhatDoesNotFit) {
  const auto dispatch = dispatch_to({0, 1}, 2);
  const auto x = at::zeros({2, 4}), gate = at::zeros({2}), wi = at::zeros({2, 6, 4}), wo = at::zeros({2, 4, 6});
  EXPECT_NO_THROW(experts_feed_forward(x, gate, dispatch, wi, {}, wo, {}));
  EXPECT_THROW(experts_feed_forward(x, gate, dispatch, wi, {}, at::zeros({2, 6, 4}), {}), Error);
  EXPECT_THROW(experts_feed_forward(x, at::zeros({3}), dispatch, wi, {}, wo, {}), Error);
  EXPECT_THROW(experts_feed_forward(x.to(at::kBFloat16), gate, dispatch, wi, {}, wo, {}), Error);
  EXPECT_THROW(experts_feed_forward(x, gate, dispatch_to({0, 1}, 3), wi, {}, wo, {}), Error);
}

TEST(RoutedExperts, SeveralRowsOfATokenAddUp) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    RouteOptions options;
    options.num_selected_experts = 3;
    options.group_size = 50;
    options.expert_capacity = {20};
    const auto logits = random_tensor({50, 6}, 1, at::kFloat);
    const auto routing = route(logits, {}, options);
    const auto call = [&](const Tensors& in) {
      return experts_feed_forward(in[0], in[1], routing.dispatch, in[2], {}, in[3], {.key = {}});
    };
    const Tensors in = {random_tensor({50, 32}, 2, dtype), routing.gate.detach(),
                        random_tensor({6, 48, 32}, 3, dtype, 0.3), random_tensor({6, 32, 48}, 4, dtype, 0.3)};
    expect_same_as_f64(
        call,
        [&](const Tensors& wide) {
          // Token by token, expert by expert, in f64.
          auto y = at::zeros({50, 32}, at::kDouble);
          std::vector<at::Tensor> rows(50, at::zeros({32}, at::kDouble));
          int64_t row = 0;
          for (int64_t expert = 0; expert < 6; ++expert)
            for (int64_t n = 0; n < routing.dispatch.rows_by_expert()[static_cast<size_t>(expert)]; ++n, ++row) {
              const auto token = routing.dispatch.token[row].item<int64_t>();
              const auto hidden = wide[2][expert].matmul(wide[0][token]).relu();
              rows[static_cast<size_t>(token)] =
                  rows[static_cast<size_t>(token)] + wide[1][row] * wide[3][expert].matmul(hidden);
            }
          return at::stack(rows);
        },
        in, 2 * tolerance_of(dtype));
  }
}

TEST(RoutedExperts, LinearMatchesTheReference) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    RouteOptions options;
    options.group_size = 40;
    options.expert_capacity = {7};
    const auto routing = route(random_tensor({40, 4}, 1, at::kFloat), {}, options);
    ASSERT_GT(read_statistics(routing.counts).dropped_fraction, 0.0);
    expect_same_as_f64(
        [&](const Tensors& in) { return experts_linear(in[0], in[1], routing.dispatch, in[2]); },
        [&](const Tensors& in) {
          std::vector<at::Tensor> rows(40, at::zeros({48}, at::kDouble));
          int64_t row = 0;
          for (int64_t expert = 0; expert < 4; ++expert)
            for (int64_t n = 0; n < routing.dispatch.rows_by_expert()[static_cast<size_t>(expert)]; ++n, ++row) {
              const auto token = routing.dispatch.token[row].item<int64_t>();
              rows[static_cast<size_t>(token)] = in[1][row] * in[2][expert].matmul(in[0][token]);
            }
          return at::stack(rows);
        },
        {random_tensor({40, 32}, 2, dtype), routing.gate.detach(), random_tensor({4, 48, 32}, 3, dtype, 0.3)},
        2 * tolerance_of(dtype));
  }
}

}  // namespace
}  // namespace switchyard::ops
