// Quantised matrices: how far their values are from what they were made of, and products with them beside products with
// these values.
#include "ops/quantized.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "ops/backend.h"
#include "ops/cross_entropy.h"
#include "ops/experts.h"
#include "ops/layers.h"
#include "testing/tensors.h"

namespace switchyard::ops {
namespace {

using test::random_tensor;
using test::relative_error;
using test::tolerance_of;

class Quantized : public testing::TestWithParam<QuantizedForm> {
 protected:
  static void SetUpTestSuite() { at::GradMode::set_enabled(false); }
  static void TearDownTestSuite() { at::GradMode::set_enabled(true); }
};

// 8 bits for a row: half a step of 1/127 of the largest. 4 bits for a group of 64: half a step of 1/8.
TEST_P(Quantized, ValuesAreNearTheMatrix) {
  const auto matrix = random_tensor({3, 70, 192}, 1, at::kFloat);
  const auto values = dequantize(quantize(matrix, GetParam()), at::kFloat);
  EXPECT_EQ(values.sizes(), matrix.sizes());
  const auto groups = GetParam() == QuantizedForm::kInt8 ? matrix : matrix.view({3, 70, 3, 64});
  const auto largest = groups.abs().amax(-1, /*keepdim=*/true).expand_as(groups).reshape(matrix.sizes());
  // int4 cannot make 8 of the side opposite to its largest, which may cost a whole step; scales are bf16 there.
  const double step = GetParam() == QuantizedForm::kInt8 ? 0.5 / 127 * 1.001 : 1.0 / 8 + 7.0 / 8 * 0x1p-8;
  EXPECT_LE(((values - matrix).abs() / largest).max().item<double>(), step);
  EXPECT_TRUE(at::equal(dequantize(quantize(values, GetParam()), at::kFloat), values)) << "twice is once";
}

TEST_P(Quantized, OddRowsHaveTheirValues) {
  const auto zeros = at::zeros({2, 64}, at::kFloat);
  EXPECT_TRUE(at::equal(dequantize(quantize(zeros, GetParam()), at::kFloat), zeros));
  auto broken = random_tensor({2, 64}, 1, at::kFloat);
  broken[1][3] = std::numeric_limits<float>::quiet_NaN();
  const auto values = dequantize(quantize(broken, GetParam()), at::kFloat);
  EXPECT_TRUE(values[0].isfinite().all().item<bool>());
  EXPECT_TRUE(values[1].isnan().all().item<bool>()) << "a matrix that is no number does not become one";
  EXPECT_THROW(quantize(at::zeros({2, 65}, at::kFloat), GetParam()), Error);
}

TEST_P(Quantized, LinearIsThatOfItsValues) {
  for (const int64_t in : {64, 768})
    for (const int64_t out : {64, 70, 384})
      for (const int64_t rows : {1, 2, 3, 4, 5, 8, 9, 65}) {
        SCOPED_TRACE(testing::Message() << rows << " x " << in << " -> " << out);
        const auto x = random_tensor({rows, in}, 1, at::kBFloat16);
        const auto matrix = quantize(random_tensor({out, in}, 2, at::kFloat, 0.3), GetParam());
        const auto exact = x.to(at::kDouble).matmul(dequantize(matrix, at::kDouble).t());
        EXPECT_LE(relative_error(linear(x, matrix), exact), tolerance_of(at::kBFloat16, in));
        EXPECT_LE(relative_error(vocabulary_logits(x, matrix, 0.5), exact * 0.5), tolerance_of(at::kBFloat16, in));
      }
}

TEST_P(Quantized, ARowDoesNotDependOnTheOthers) {
  const auto x = random_tensor({8, 768}, 1, at::kBFloat16, 4.0);
  const auto matrix = quantize(random_tensor({100, 768}, 2, at::kFloat), GetParam());
  const auto all = linear(x, matrix);
  for (int64_t row = 0; row < 8; ++row)
    EXPECT_TRUE(at::equal(linear(x.narrow(0, row, 1), matrix)[0], all[row])) << "row " << row;
  auto with_nan = x.clone();
  with_nan[2][5] = std::numeric_limits<float>::infinity();
  const auto broken = linear(with_nan, matrix);
  EXPECT_TRUE(broken[2].isnan().all().item<bool>());
  EXPECT_TRUE(at::equal(broken[3], all[3]));
}

TEST_P(Quantized, FeedForwardAndExpertsAreThoseOfTheirValues) {
  for (const bool is_gated : {false, true}) {
    const auto matrices = [&](int64_t out, int64_t in, uint64_t seed) {
      return quantize(random_tensor({4, out, in}, seed, at::kFloat, 0.2), GetParam());
    };
    const auto wi = matrices(128, 64, 1), wi_1 = is_gated ? matrices(128, 64, 2) : at::Tensor(),
               wo = matrices(64, 128, 3);
    const auto values = [](const at::Tensor& matrix) {
      return matrix.defined() ? dequantize(matrix, at::kDouble) : matrix;
    };
    const Activation function = is_gated ? Activation::kGeluNew : Activation::kRelu;
    const auto x = random_tensor({2, 3, 64}, 4, at::kBFloat16);
    const auto gate_of = [&](const at::Tensor& matrix, int64_t expert) {
      return matrix.defined() ? matrix[expert] : matrix;
    };
    EXPECT_LE(relative_error(feed_forward(x, wi[1], gate_of(wi_1, 1), wo[1], {.activation = function, .key = {}}),
                             feed_forward(x.to(at::kDouble), values(wi)[1], gate_of(values(wi_1), 1), values(wo)[1],
                                          {.activation = function, .key = {}})),
              3 * tolerance_of(at::kBFloat16, 128))
        << "three products and roundings";
    Dispatch dispatch;  // none, one, three and twelve rows
    dispatch.offsets = at::tensor(std::vector<int64_t>{0, 0, 1, 4, 16});
    dispatch.token = dispatch.number = at::arange(16, at::kLong);
    const auto rows = random_tensor({16, 64}, 5, at::kBFloat16);
    EXPECT_LE(relative_error(expert_rows(rows, dispatch, wi, wi_1, wo, {.activation = function, .key = {}}),
                             expert_rows(rows.to(at::kDouble), dispatch, values(wi), values(wi_1), values(wo),
                                         {.activation = function, .key = {}})),
              3 * tolerance_of(at::kBFloat16, 128));
  }
}

TEST_P(Quantized, JoinedMatricesAreTheMatricesJoined) {
  const auto first = quantize(random_tensor({64, 128}, 1, at::kFloat), GetParam());
  const auto second = quantize(random_tensor({32, 128}, 2, at::kFloat), GetParam());
  EXPECT_TRUE(at::equal(dequantize(at::cat({first, second}), at::kFloat),
                        at::cat({dequantize(first, at::kFloat), dequantize(second, at::kFloat)})));
  EXPECT_EQ(inputs_of(first), 128);
}

TEST_P(Quantized, IsForBf16WithoutGradientAlone) {
  const auto matrix = quantize(random_tensor({64, 64}, 1, at::kFloat), GetParam());
  EXPECT_THROW(linear(random_tensor({2, 64}, 1, at::kFloat), matrix), Error);
  EXPECT_THROW(linear(random_tensor({2, 128}, 1, at::kBFloat16), matrix), Error);
}

INSTANTIATE_TEST_SUITE_P(Forms, Quantized, testing::Values(QuantizedForm::kInt8, QuantizedForm::kInt4),
                         [](const auto& test) { return test.param == QuantizedForm::kInt8 ? "Int8" : "Int4"; });

}  // namespace
}  // namespace switchyard::ops
