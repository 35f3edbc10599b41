#include "ops/layers.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

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
using test::tolerance_of;

constexpr NoiseKey kKey{.seed = 5, .purpose = NoisePurpose::kDropout, .step = 7, .layer = 3};

TEST(RmsNorm, MatchesTheFormulaByHand) {
  const auto x = at::tensor({3.0, 4.0}, at::kDouble);
  const auto y = rms_norm(x, at::tensor({1.0, 2.0}, at::kDouble), 0.0, at::kDouble);
  EXPECT_NEAR(y[0].item<double>(), 3.0 / std::sqrt(12.5), 1e-12);
  EXPECT_NEAR(y[1].item<double>(), 8.0 / std::sqrt(12.5), 1e-12);
}

TEST(RmsNorm, GradientsMatchDifferences) {
  expect_gradients_match_differences([](const Tensors& in) { return rms_norm(in[0], in[1], 1e-6, at::kDouble); },
                                     {random_tensor({3, 5}, 1), random_tensor({5}, 2)});
}

TEST(RmsNorm, FusedMatchesTheReferenceOverShapes) {
  const std::vector<std::vector<int64_t>> shapes = {{2},         {1, 2},    {3, 7},    {2, 5, 33}, {17, 16},
                                                    {4, 3, 256}, {130, 96}, {70, 100}, {0, 32}};
  for (const auto& shape : shapes) {
    SCOPED_TRACE(testing::PrintToString(shape));
    const Tensors inputs = {random_tensor(shape, 1, at::kFloat, 3.0), random_tensor({shape.back()}, 2, at::kFloat)};
    for (const auto out_dtype : {at::kFloat, at::kBFloat16}) {
      expect_same_as_f64([&](const Tensors& in) { return rms_norm(in[0], in[1], 1e-6, out_dtype); },
                         [](const Tensors& in) { return reference::rms_norm(in[0], in[1], 1e-6, at::kDouble); }, inputs,
                         tolerance_of(out_dtype));
    }
  }
}

TEST(RmsNorm, TakesAnyStrides) {
  const auto x = random_tensor({6, 10}, 1, at::kFloat).t();
  const auto scale = random_tensor({6}, 2, at::kFloat);
  EXPECT_TRUE(rms_norm(x, scale, 1e-6, at::kFloat).equal(rms_norm(x.contiguous(), scale, 1e-6, at::kFloat)));
}

TEST(RmsNorm, RefusesOtherDtypes) {
  EXPECT_THROW(
      rms_norm(random_tensor({2, 4}, 1, at::kBFloat16), random_tensor({4}, 2, at::kBFloat16), 1e-6, at::kFloat), Error);
  EXPECT_THROW(rms_norm(random_tensor({2, 4}, 1, at::kFloat), random_tensor({5}, 2, at::kFloat), 1e-6, at::kFloat),
               Error);
}

TEST(AddResidual, AddsInTheStreamsDtype) {
  for (const int64_t length : {1, 31, 700}) {
    const Tensors inputs = {random_tensor({2, length, 3}, 1, at::kFloat),
                            random_tensor({2, length, 3}, 2, at::kBFloat16)};
    const auto before = inputs[0].clone();
    const auto sum = add_residual(inputs[0], inputs[1]);
    EXPECT_EQ(sum.scalar_type(), at::kFloat);
    EXPECT_TRUE(sum.equal(inputs[0] + inputs[1].to(at::kFloat)));
    EXPECT_TRUE(inputs[0].equal(before));
    expect_same_as_f64([](const Tensors& in) { return add_residual(in[0], in[1]); },
                       [](const Tensors& in) { return in[0] + in[1]; }, inputs, tolerance_of(at::kBFloat16));
  }
  EXPECT_THROW(add_residual(at::zeros({2, 3}), at::zeros({2, 4})), Error);
}

TEST(Linear, IsXTimesTheTransposedWeight) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const Tensors inputs = {random_tensor({2, 5, 24}, 1, dtype), random_tensor({40, 24}, 2, dtype)};
    expect_same_as_f64([](const Tensors& in) { return linear(in[0], in[1]); },
                       [](const Tensors& in) { return in[0].matmul(in[1].t()); }, inputs, tolerance_of(dtype));
  }
  EXPECT_THROW(linear(at::zeros({2, 3}), at::zeros({5, 4})), Error);
}

// From one row, which is not packed, to more than a packed panel serves; widths of one and several panels.
TEST(Linear, FusedMatchesF64OverShapes) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t rows : {0, 1, 2, 3, 4, 7, 8, 9, 64, 130, 1100})
      for (const auto& [inner, columns] : std::vector<std::array<int64_t, 2>>{{64, 64}, {192, 128}}) {
        SCOPED_TRACE(testing::Message() << toString(dtype) << " " << rows << " x " << inner << " x " << columns);
        expect_same_as_f64([](const Tensors& in) { return linear(in[0], in[1]); },
                           [](const Tensors& in) { return in[0].matmul(in[1].t()); },
                           {random_tensor({rows, inner}, 1, dtype), random_tensor({columns, inner}, 2, dtype)},
                           tolerance_of(dtype));
      }
}

TEST(Linear, ARowDoesNotDependOnItsCompanions) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto x = random_tensor({200, 128}, 1, dtype), weight = random_tensor({64, 128}, 2, dtype);
    const auto whole = linear(x, weight);
    for (const int64_t rows : {16, 65, 129})
      EXPECT_TRUE(linear(x.narrow(0, 3, rows), weight).equal(whole.narrow(0, 3, rows)));
  }
}

// As in at::relu, a NaN does not become 0: in the product of a few rows, in that of many, and where a kernel applies
// the activation by itself (with a gate or dropout).
TEST(FeedForward, NanStaysNan) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const auto name : {Activation::kRelu, Activation::kGeluNew, Activation::kSilu})
      for (const int64_t rows : {1, 4, 8, 9, 65})
        for (const bool gated : {false, true}) {
          SCOPED_TRACE(testing::Message()
                       << dtype << " " << static_cast<int>(name) << " " << rows << (gated ? " gated" : ""));
          auto x = random_tensor({1, rows, 64}, 1, dtype);
          x[0][rows - 1][5] = std::numeric_limits<float>::quiet_NaN();
          const auto wi = random_tensor({128, 64}, 2, dtype), wo = random_tensor({64, 128}, 3, dtype);
          const auto y = feed_forward(x, wi, gated ? wi : at::Tensor(), wo, {.activation = name, .key = kKey});
          EXPECT_TRUE(y[0][rows - 1].isnan().all().item<bool>());
          EXPECT_FALSE(y[0].slice(0, 0, rows - 1).isnan().any().item<bool>());
        }
}

TEST(Embedding, GathersRowsAndSumsTheirGradients) {
  const auto ids = at::tensor({3, 0, 3, 3, 9, 0}, at::kLong).view({2, 3});
  for (const auto dtype : {at::kDouble, at::kFloat}) {
    const auto weight = random_tensor({10, 6}, 1, dtype);
    const auto [value, gradients] = evaluate([&](const Tensors& in) { return embedding(in[0], ids); }, {weight});
    EXPECT_EQ(value.sizes(), (std::vector<int64_t>{2, 3, 6}));
    EXPECT_TRUE(value[1][1].equal(weight[9].to(at::kDouble)));
    const auto cotangent = random_tensor({2, 3, 6}, 4711, dtype).to(at::kDouble);
    const auto& gradient = gradients[0];
    EXPECT_LT(relative_error(gradient[3], cotangent[0][0] + cotangent[0][2] + cotangent[1][0]), 1e-6);
    EXPECT_LT(relative_error(gradient[0], cotangent[0][1] + cotangent[1][2]), 1e-6);
    EXPECT_EQ(gradient[4].abs().sum().item<double>(), 0.0);
  }
}

TEST(Embedding, RefusesIdsOutsideTheTable) {
  const auto weight = at::zeros({10, 4});
  EXPECT_THROW(embedding(weight, at::tensor({0, 10}, at::kLong)), Error);
  EXPECT_THROW(embedding(weight, at::tensor({-1}, at::kLong)), Error);
}

TEST(Dropout, SharesOneMaskAlongTheLength) {
  const auto x = random_tensor({3, 5, 400}, 1, at::kFloat).abs() + 0.5;
  const auto y = dropout(x, 0.25, kKey, 0);
  const auto kept = y.ne(0);
  for (int64_t position = 1; position < 5; ++position) EXPECT_TRUE(kept.select(1, position).equal(kept.select(1, 0)));
  EXPECT_FALSE(kept[0].equal(kept[1]));
  EXPECT_NEAR(kept.to(at::kFloat).mean().item<double>(), 0.75, 0.05);
  EXPECT_LT(relative_error(y, x * kept / 0.75), 1e-6);
}

TEST(Dropout, IsAFunctionOfTheExamplesNumber) {
  const auto x = random_tensor({4, 3, 65}, 1, at::kFloat);
  const auto whole = dropout(x, 0.4, kKey, 10);
  EXPECT_TRUE(dropout(x.narrow(0, 1, 2), 0.4, kKey, 11).equal(whole.narrow(0, 1, 2)));
  EXPECT_FALSE(dropout(x, 0.4, {.seed = 6, .purpose = NoisePurpose::kDropout}, 10).equal(whole));
}

TEST(Dropout, IdentityAtRateZeroAndErrors) {
  const auto x = random_tensor({2, 3, 4}, 1, at::kFloat);
  EXPECT_TRUE(dropout(x, 0.0, kKey, 0).is_same(x));
  EXPECT_THROW(dropout(x, 1.0, kKey, 0), Error);
  EXPECT_THROW(dropout(x, -0.1, kKey, 0), Error);
}

TEST(Dropout, FusedMatchesTheReference) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto call = [](const Tensors& in) { return dropout(in[0], 0.3, kKey, 2); };
    const auto plain = [](const Tensors& in) { return reference::dropout(in[0], 0.3, kKey, 2); };
    for (const int64_t channels : {45, 48, 272})
      expect_same_as_f64(call, plain, {random_tensor({3, 7, channels}, 1, dtype)}, tolerance_of(dtype));
  }
}

TEST(Activation, MatchesTheFormulas) {
  const auto x = at::arange(-40, 41, at::kDouble) / 10.0;
  const double pi = 3.14159265358979323846;
  const auto expect = [&](Activation function, auto formula) {
    const auto y = activation(x, function);
    for (int64_t index = 0; index < x.numel(); ++index) {
      const double value = x[index].item<double>();
      EXPECT_NEAR(y[index].item<double>(), formula(value), 1e-12) << to_word(function) << " at " << value;
    }
  };
  expect(Activation::kRelu, [](double v) { return v > 0 ? v : 0; });
  expect(Activation::kGelu, [](double v) { return 0.5 * v * (1 + std::erf(v / std::sqrt(2.0))); });
  expect(Activation::kGeluNew,
         [&](double v) { return 0.5 * v * (1 + std::tanh(std::sqrt(2 / pi) * (v + 0.044715 * v * v * v))); });
  expect(Activation::kSilu, [](double v) { return v / (1 + std::exp(-v)); });
}

struct FeedForwardCase {
  Activation activation;
  bool gated;
  double dropout_rate;
};

class FeedForward : public testing::TestWithParam<FeedForwardCase> {
 protected:
  at::Tensor run(const Tensors& in, bool plain) const {
    const FeedForwardOptions options{.activation = GetParam().activation,
                                     .hidden_dropout_rate = GetParam().dropout_rate,
                                     .key = kKey,
                                     .first_example = 4};
    const auto wi_1 = GetParam().gated ? in[3] : at::Tensor();
    return plain ? reference::feed_forward(in[0], in[1], wi_1, in[2], options)
                 : feed_forward(in[0], in[1], wi_1, in[2], options);
  }
  static Tensors inputs(int64_t batch, int64_t length, int64_t d_model, int64_t d_ff, at::ScalarType dtype) {
    Tensors all = {random_tensor({batch, length, d_model}, 1, dtype), random_tensor({d_ff, d_model}, 2, dtype, 0.3),
                   random_tensor({d_model, d_ff}, 3, dtype, 0.3)};
    if (GetParam().gated) all.push_back(random_tensor({d_ff, d_model}, 4, dtype, 0.3));
    return all;
  }
};

TEST_P(FeedForward, GradientsMatchDifferences) {
  expect_gradients_match_differences([&](const Tensors& in) { return run(in, false); }, inputs(2, 3, 5, 7, at::kDouble),
                                     12, 1e-6);
}

TEST_P(FeedForward, FusedMatchesTheReferenceOverShapes) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const auto& [batch, length, d_model, d_ff] : std::vector<std::array<int64_t, 4>>{
             {1, 1, 1, 1}, {2, 3, 8, 16}, {1, 9, 33, 70}, {3, 40, 64, 96}, {3, 50, 64, 128}, {1, 5, 128, 64}}) {
      SCOPED_TRACE(testing::Message() << toString(dtype) << " " << batch << " " << length << " " << d_model << " "
                                      << d_ff);
      // A chain of three products in bf16 rounds about five times.
      expect_same_as_f64([&](const Tensors& in) { return run(in, false); },
                         [&](const Tensors& in) { return run(in, true); }, inputs(batch, length, d_model, d_ff, dtype),
                         2 * tolerance_of(dtype));
    }
}

INSTANTIATE_TEST_SUITE_P(
    All, FeedForward,
    testing::Values(FeedForwardCase{Activation::kRelu, false, 0.0}, FeedForwardCase{Activation::kRelu, false, 0.3},
                    FeedForwardCase{Activation::kGeluNew, true, 0.0}, FeedForwardCase{Activation::kGeluNew, true, 0.2},
                    FeedForwardCase{Activation::kSilu, true, 0.0}, FeedForwardCase{Activation::kGelu, false, 0.0}),
    [](const auto& test) {
      return std::string(to_word(test.param.activation)) + (test.param.gated ? "_gated" : "") +
             (test.param.dropout_rate > 0 ? "_dropout" : "");
    });

}  // namespace
}  // namespace switchyard::ops
