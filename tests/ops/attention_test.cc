#include "ops/attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/brgemm.h"
#include "ops/attention_reference.h"
#include "ops/gradient_check.h"

namespace switchyard::ops {
namespace {

using test::random_tensor;
using test::relative_error;
using test::Tensors;

enum class Mask { kNone, kPadding, kLeftPadding, kScattered, kSomeRowsEmpty };

struct Case {
  int64_t batch, heads, query_length, key_length, d_kv;
  bool causal = false;
  int64_t query_offset = 0;
  bool bias = true;
  Mask mask = Mask::kNone;

  AttentionOptions options() const { return {.num_heads = heads, .causal = causal, .query_offset = query_offset}; }
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "batch " << c.batch << ", heads " << c.heads << ", " << c.query_length << " x " << c.key_length
             << ", d_kv " << c.d_kv << (c.causal ? ", causal" : "") << ", offset " << c.query_offset
             << (c.bias ? ", bias" : "") << ", mask " << static_cast<int>(c.mask);
}

// q, k, v (strided views of one projection when the lengths agree) and the bias table. Scores have a spread of about 2.
struct Inputs {
  at::Tensor q, k, v, bias, mask;
};

Inputs make_inputs(const Case& c, at::ScalarType dtype) {
  const int64_t width = c.heads * c.d_kv;
  const double scale = std::sqrt(2.0) / std::pow(static_cast<double>(c.d_kv), 0.25);
  Inputs inputs;
  inputs.q = random_tensor({c.batch, c.query_length, width}, 1, dtype, scale);
  inputs.k = random_tensor({c.batch, c.key_length, width}, 2, dtype, scale);
  inputs.v = random_tensor({c.batch, c.key_length, width}, 3, dtype);
  if (c.bias)
    inputs.bias =
        random_tensor({c.heads, c.query_length + c.key_length - 1}, 4, dtype == at::kDouble ? dtype : at::kFloat);
  if (c.mask == Mask::kNone) return inputs;
  inputs.mask = at::ones({c.batch, c.key_length}, at::kBool);
  for (int64_t row = 0; row < c.batch; ++row) {
    auto mask = inputs.mask[row];
    if (c.mask == Mask::kPadding) mask.slice(0, c.key_length - ((row + 1) * c.key_length) / (c.batch + 2)).fill_(false);
    if (c.mask == Mask::kLeftPadding) mask.slice(0, 0, c.key_length / (row + 2)).fill_(false);
    if (c.mask == Mask::kScattered || c.mask == Mask::kSomeRowsEmpty)
      for (int64_t key = 0; key < c.key_length; ++key)
        if ((key * 7 + row) % 3 == 0) mask[key] = false;
    // Under a causal mask the first queries of row 0 then see no key; in row 1 nobody does.
    if (c.mask == Mask::kSomeRowsEmpty)
      mask.slice(0, 0, row == 1 ? c.key_length : std::min<int64_t>(c.key_length, 3)).fill_(false);
  }
  return inputs;
}

// The definition, element by element in f64 and without ATen's matmul or softmax.
at::Tensor attention_by_definition(const Inputs& inputs, const Case& c) {
  auto out = at::zeros({c.batch, c.query_length, c.heads * c.d_kv}, at::kDouble);
  auto* to = out.mutable_data_ptr<double>();
  const auto q = inputs.q.to(at::kDouble).contiguous(), k = inputs.k.to(at::kDouble).contiguous(),
             v = inputs.v.to(at::kDouble).contiguous();
  const auto bias = inputs.bias.defined() ? inputs.bias.to(at::kDouble).contiguous() : at::Tensor();
  const int64_t width = c.heads * c.d_kv, distances = c.query_length + c.key_length - 1;
  const bool* mask = inputs.mask.defined() ? inputs.mask.const_data_ptr<bool>() : nullptr;
  const double* bias_table = inputs.bias.defined() ? bias.const_data_ptr<double>() : nullptr;
  for (int64_t row = 0; row < c.batch; ++row)
    for (int64_t head = 0; head < c.heads; ++head)
      for (int64_t query = 0; query < c.query_length; ++query) {
        std::vector<double> weight(c.key_length, 0.0);
        double maximum = -std::numeric_limits<double>::infinity(), sum = 0;
        const auto sees = [&](int64_t key) {
          return (!c.causal || key <= query + c.query_offset) && (mask == nullptr || mask[row * c.key_length + key]);
        };
        const double* q_row = q.const_data_ptr<double>() + (row * c.query_length + query) * width + head * c.d_kv;
        for (int64_t key = 0; key < c.key_length; ++key) {
          if (!sees(key)) continue;
          const double* k_row = k.const_data_ptr<double>() + (row * c.key_length + key) * width + head * c.d_kv;
          for (int64_t i = 0; i < c.d_kv; ++i) weight[key] += q_row[i] * k_row[i];
          if (bias_table != nullptr) weight[key] += bias_table[head * distances + key - query + c.query_length - 1];
          maximum = std::max(maximum, weight[key]);
        }
        for (int64_t key = 0; key < c.key_length; ++key)
          sum += weight[key] = sees(key) ? std::exp(weight[key] - maximum) : 0.0;
        for (int64_t key = 0; sum > 0 && key < c.key_length; ++key)
          for (int64_t i = 0; i < c.d_kv; ++i)
            to[(row * c.query_length + query) * width + head * c.d_kv + i] +=
                weight[key] / sum * v.const_data_ptr<double>()[(row * c.key_length + key) * width + head * c.d_kv + i];
      }
  return out;
}

// Roundings of the format that a result meets, as a relative error in the norm: an f32 product of up to 600 terms; for
// bf16 the rounding of probabilities and results (2^-9 each, their gradients once more), errors being independent.
double tolerance(at::ScalarType dtype) { return dtype == at::kBFloat16 ? 6e-3 : 3e-6; }

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {2, 3, 64, 64, 64},
      {1, 1, 1, 1, 16, false, 0, true},
      {2, 2, 7, 7, 16, true},
      {1, 2, 114, 114, 64, true, 0, true, Mask::kPadding},
      {2, 2, 114, 513, 64, false, 0, false, Mask::kPadding},
      {1, 2, 513, 513, 64, false, 0, true, Mask::kScattered},
      {1, 1, 513, 513, 64, true},
      {3, 2, 65, 129, 32, false, 0, true, Mask::kSomeRowsEmpty},
      {3, 2, 70, 70, 40, true, 0, true, Mask::kSomeRowsEmpty},
      {2, 2, 33, 95, 128, false, 0, true},
      {2, 1, 40, 100, 128, true, 60, true},
      {2, 2, 17, 200, 64, true, 100, false, Mask::kPadding},
      {1, 2, 5, 300, 64, true, 295, true},
      {2, 3, 1, 50, 64, true, 49, true, Mask::kScattered},
      {3, 2, 3, 41, 24, true, 38, true, Mask::kSomeRowsEmpty},
      {2, 2, 150, 20, 8, false, 0, true, Mask::kPadding},
      {1, 2, 200, 40, 24, true, 3, true},
      {1, 1, 130, 70, 96, true, 0, false},
      {1, 1, 70, 1500, 64, false, 0, true, Mask::kPadding},
      {2, 2, 70, 300, 64, true, 230, true, Mask::kLeftPadding},
  };
  return all;
}

class Attention : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Shapes, Attention, testing::ValuesIn(cases()));

TEST_P(Attention, ReferenceIsTheDefinition) {
  const auto inputs = make_inputs(GetParam(), at::kDouble);
  const auto out = attention(inputs.q, inputs.k, inputs.v, inputs.bias, inputs.mask, GetParam().options());
  EXPECT_LE(relative_error(out, attention_by_definition(inputs, GetParam())), 1e-12);
}

class AttentionDifferences : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(SmallShapes, AttentionDifferences, testing::ValuesIn([] {
                           std::vector<Case> small;
                           for (const Case& c : cases())
                             if (c.query_length * c.key_length <= 20000) small.push_back(c);
                           return small;
                         }()));

TEST_P(AttentionDifferences, ReferenceGradientsMatchThem) {
  const Case& c = GetParam();
  const auto inputs = make_inputs(c, at::kDouble);
  Tensors arguments = {inputs.q, inputs.k, inputs.v};
  if (c.bias) arguments.push_back(inputs.bias);
  test::expect_gradients_match_differences(
      [&](const Tensors& x) {
        return attention(x[0], x[1], x[2], c.bias ? x[3] : at::Tensor(), inputs.mask, c.options());
      },
      arguments);
}

// The fused form in `dtype`, from strided rows, against the reference in f64 on the same numbers: output and all
// gradients.
void expect_fused_matches(const Case& c, at::ScalarType dtype) {
  const auto inputs = make_inputs(c, dtype);
  const auto apply = [&](const Tensors& x) {
    return attention(x[0], x[1], x[2], c.bias ? x[3] : at::Tensor(), inputs.mask, c.options());
  };
  // Neighbours in one wide tensor, as slices of a fused projection are.
  const auto strided = [&](const Tensors& x) {
    const auto wide = at::cat({x[1], x[2]}, -1);
    const int64_t width = c.heads * c.d_kv;
    const auto q = at::cat({at::zeros_like(x[0]), x[0]}, -1).slice(2, width);
    const auto out = attention(q, wide.slice(2, 0, width), wide.slice(2, width), c.bias ? x[3] : at::Tensor(),
                               inputs.mask, c.options());
    EXPECT_NE(out.grad_fn()->name().find("FusedAttention"), std::string::npos) << "ran " << out.grad_fn()->name();
    return out;
  };
  Tensors arguments = {inputs.q, inputs.k, inputs.v};
  if (c.bias) arguments.push_back(inputs.bias);
  const auto actual = test::evaluate(strided, arguments);
  Tensors exact;
  for (const auto& argument : arguments) exact.push_back(argument.to(at::kDouble));
  const auto wanted = test::evaluate(apply, exact);
  EXPECT_LE(relative_error(actual.value, wanted.value), tolerance(dtype)) << "output";
  const char* names[] = {"q", "k", "v", "bias"};
  for (size_t i = 0; i < arguments.size(); ++i) {
    EXPECT_LE(relative_error(actual.gradients[i], wanted.gradients[i]), 2 * tolerance(dtype))
        << "gradient of " << names[i];
  }
}

TEST_P(Attention, FusedF32MatchesTheReference) {
  if (!kernels::brgemm_available_f32()) GTEST_SKIP() << "this processor has no f32 brgemm";
  expect_fused_matches(GetParam(), at::kFloat);
}

TEST_P(Attention, FusedBf16MatchesTheReference) {
  if (!kernels::brgemm_available_bf16()) GTEST_SKIP() << "this processor has no bf16 brgemm";
  expect_fused_matches(GetParam(), at::kBFloat16);
}

// Without gradients: the same output, for few queries by the decoding kernel.
TEST_P(Attention, InferenceMatchesTheReference) {
  const Case& c = GetParam();
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto inputs = make_inputs(c, dtype);
    const auto out = attention(inputs.q, inputs.k, inputs.v, inputs.bias, inputs.mask, c.options());
    EXPECT_FALSE(out.requires_grad());
    EXPECT_EQ(out.scalar_type(), dtype);
    EXPECT_LE(relative_error(out, attention_by_definition(inputs, c)), tolerance(dtype));
  }
}

// Decoding one query at a time over a growing cache gives the rows of the full causal attention.
TEST(AttentionDecoding, StepsGiveTheRowsOfTheWhole) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t d_kv : {64, 40}) {
      const int64_t length = 37, heads = 3;
      const Case c{2, heads, length, length, d_kv, true};
      const auto inputs = make_inputs(c, dtype);
      const auto weight = random_tensor({32, heads}, 9, at::kFloat);
      const auto bias =
          relative_bias_by_distance(weight, {.query_length = length, .key_length = length, .bidirectional = false});
      const auto whole = attention(inputs.q, inputs.k, inputs.v, bias, {}, c.options());
      for (const int64_t step : {1, 2})
        for (int64_t position = 0; position + step <= length; position += step) {
          const int64_t end = position + step;
          const auto step_bias = relative_bias_by_distance(
              weight, {.query_length = step, .key_length = end, .query_offset = position, .bidirectional = false});
          const auto out =
              attention(inputs.q.slice(1, position, end), inputs.k.slice(1, 0, end), inputs.v.slice(1, 0, end),
                        step_bias, {}, {.num_heads = heads, .causal = true, .query_offset = position});
          EXPECT_LE(relative_error(out, whole.slice(1, position, end)), tolerance(dtype)) << position;
        }
    }
}

// A query that sees no key gives exactly 0, and takes part in no gradient; nothing becomes NaN.
TEST(AttentionMask, QueriesWithoutKeysAreZero) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const Case c{2, 2, 40, 50, 16, true, 0, true, Mask::kSomeRowsEmpty};
    const auto inputs = make_inputs(c, dtype);
    const auto evaluation =
        test::evaluate([&](const Tensors& x) { return attention(x[0], x[1], x[2], x[3], inputs.mask, c.options()); },
                       {inputs.q, inputs.k, inputs.v, inputs.bias});
    EXPECT_EQ(evaluation.value[1].abs().max().item<double>(), 0.0);
    EXPECT_EQ(evaluation.value[0].slice(0, 0, 3).abs().max().item<double>(), 0.0);
    EXPECT_GT(evaluation.value[0].slice(0, 6).abs().max().item<double>(), 0.0);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(evaluation.gradients[i][1].abs().max().item<double>(), 0.0) << "input " << i;
    for (const auto& gradient : evaluation.gradients) EXPECT_TRUE(std::isfinite(gradient.sum().item<double>()));
  }
}

// Masked keys may hold any finite number.
TEST(AttentionMask, MaskedKeysDoNotLeak) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t query_length : {1, 30}) {
      const Case c{1, 2, query_length, 90, 64, false, 0, true, Mask::kPadding};
      auto inputs = make_inputs(c, dtype);
      inputs.mask.slice(1, 50).fill_(false);
      const auto before = attention(inputs.q, inputs.k, inputs.v, inputs.bias, inputs.mask, c.options());
      inputs.k.slice(1, 50).fill_(1e4);
      inputs.v.slice(1, 50).fill_(-1e4);
      EXPECT_TRUE(before.equal(attention(inputs.q, inputs.k, inputs.v, inputs.bias, inputs.mask, c.options())));
    }
}

// Large scores: the softmax subtracts the maximum, so nothing overflows.
TEST(AttentionRange, LargeScoresStayFinite) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const Case c{1, 1, 40, 70, 64};
    auto inputs = make_inputs(c, dtype);
    inputs.q = inputs.q * 100;
    const auto evaluation =
        test::evaluate([&](const Tensors& x) { return attention(x[0], x[1], x[2], x[3], {}, c.options()); },
                       {inputs.q, inputs.k, inputs.v, inputs.bias});
    // Scores of some thousands: a rounding of one is 1e-4 in its exponential.
    EXPECT_LE(relative_error(evaluation.value, attention_by_definition(inputs, c)),
              dtype == at::kFloat ? 1e-4 : tolerance(dtype));
    for (const auto& gradient : evaluation.gradients) EXPECT_TRUE(std::isfinite(gradient.sum().item<double>()));
  }
}

test::Evaluation evaluate_case(const Case& c, const Inputs& inputs) {
  return test::evaluate([&](const Tensors& x) { return attention(x[0], x[1], x[2], x[3], inputs.mask, c.options()); },
                        {inputs.q, inputs.k, inputs.v, inputs.bias});
}

TEST(AttentionBits, DoNotDependOnTheNumberOfThreads) {
  const int threads = at::get_num_threads();
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const Case c{3, 2, 114, 130, 64, false, 0, true, Mask::kPadding};
    const auto inputs = make_inputs(c, dtype);
    at::set_num_threads(1);
    const auto one = evaluate_case(c, inputs);
    at::set_num_threads(2);
    const auto two = evaluate_case(c, inputs);
    EXPECT_TRUE(one.value.equal(two.value));
    for (size_t i = 0; i < one.gradients.size(); ++i)
      EXPECT_TRUE(one.gradients[i].equal(two.gradients[i])) << "gradient " << i;
  }
  at::set_num_threads(threads);
}

// An example alone has the bits that it has in a batch.
TEST(AttentionBits, DoNotDependOnTheRestOfTheBatch) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const Case c{3, 2, 90, 130, 64, false, 0, true, Mask::kPadding};
    const auto inputs = make_inputs(c, dtype);
    const auto cotangent = random_tensor(inputs.q.sizes(), 77, dtype);
    const auto run = [&](int64_t from, int64_t to) {
      Tensors leaves;
      for (const auto& x : {inputs.q, inputs.k, inputs.v})
        leaves.push_back(x.slice(0, from, to).detach().clone().requires_grad_(true));
      const auto out =
          attention(leaves[0], leaves[1], leaves[2], inputs.bias, inputs.mask.slice(0, from, to), c.options());
      auto results = torch::autograd::grad({out}, leaves, {cotangent.slice(0, from, to)});
      results.push_back(out.detach());
      return results;
    };
    const auto all = run(0, 3), last = run(2, 3);
    for (size_t i = 0; i < all.size(); ++i) EXPECT_TRUE(all[i].slice(0, 2, 3).equal(last[i])) << "result " << i;
  }
}

// A gradient that comes out of sum() has zero strides; a transposed one has no contiguous last axis.
TEST(AttentionGradient, AcceptsAnyStrides) {
  const Case c{2, 2, 20, 30, 16};
  const auto inputs = make_inputs(c, at::kFloat);
  const auto gradient_for = [&](const at::Tensor& d_out) {
    const auto q = inputs.q.detach().clone().requires_grad_(true);
    return torch::autograd::grad({attention(q, inputs.k, inputs.v, inputs.bias, {}, c.options())}, {q}, {d_out})[0];
  };
  const auto ones = at::ones({}, at::kFloat).expand(inputs.q.sizes());
  EXPECT_TRUE(gradient_for(ones).equal(gradient_for(ones.contiguous())));
  const auto transposed = random_tensor({2, 32, 20}, 5, at::kFloat).transpose(1, 2);
  EXPECT_TRUE(gradient_for(transposed).equal(gradient_for(transposed.contiguous())));
}

TEST(AttentionErrors, NameTheShapes) {
  const Case c{2, 2, 8, 9, 16};
  const auto i = make_inputs(c, at::kFloat);
  const auto options = c.options();
  EXPECT_NO_THROW(attention(i.q, i.k, i.v, i.bias, {}, options));
  EXPECT_THROW(attention(i.q, i.k, i.v.slice(1, 1), i.bias, {}, options), Error);
  EXPECT_THROW(attention(i.q, i.k.to(at::kBFloat16), i.v, i.bias, {}, options), Error);
  EXPECT_THROW(attention(i.q, i.k, i.v, i.bias.slice(1, 1), {}, options), Error);
  EXPECT_THROW(attention(i.q, i.k, i.v, {}, at::ones({2, 8}, at::kBool), options), Error);
  EXPECT_THROW(attention(i.q, i.k, i.v, {}, at::ones({2, 9}, at::kFloat), options), Error);
  EXPECT_THROW(attention(i.q, i.k, i.v, {}, {}, {.num_heads = 3}), Error);
  EXPECT_THROW(attention(i.q, i.k, i.v, {}, {}, {.num_heads = 2, .query_offset = -1}), Error);
}

}  // namespace
}  // namespace switchyard::ops
