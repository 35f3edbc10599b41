#include "ops/soft_cross_entropy.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "ops/gradient_check.h"

namespace switchyard::ops {
namespace {

using test::evaluate;
using test::expect_gradients_match_differences;
using test::expect_same_as_f64;
using test::random_tensor;
using test::Tensors;
using test::tolerance_of;

// Labels of which every third is ignored.
at::Tensor some_labels(int64_t tokens) {
  auto labels = at::zeros({tokens}, at::kLong);
  for (int64_t token = 2; token < tokens; token += 3) labels[token] = -100;
  return labels;
}

TeacherProbabilities rows_of(const at::Tensor& probabilities) {
  return [probabilities](const at::Tensor& tokens) { return probabilities.index_select(0, tokens); };
}

at::Tensor plain(const Tensors& in, const at::Tensor& labels, double scale, double temperature,
                 const at::Tensor& probabilities) {
  const auto log_student = at::log_softmax(in[0].matmul(in[1].t()) * scale / temperature, 1);
  const auto terms = (log_student * probabilities.to(log_student.scalar_type())).sum(1);
  return -(terms * labels.ge(0).to(terms.scalar_type())).sum();
}

TEST(SoftCrossEntropy, MatchesTheFormulaByHand) {
  const auto hidden = at::tensor({1.0, 0.0}, at::kDouble).view({1, 2});
  const auto identity = at::tensor({1.0, 0.0, 0.0, 1.0}, at::kDouble).view({2, 2});
  const auto teacher = at::tensor({0.25, 0.75}, at::kDouble).view({1, 2});
  // Logits 1 and 0 at temperature 2: log Z = log(e^0.5 + 1).
  const double log_z = std::log(std::exp(0.5) + 1.0);
  const auto sum = soft_cross_entropy(hidden, identity, at::zeros({1}, at::kLong), 1.0, 2.0, rows_of(teacher));
  EXPECT_NEAR(sum.item<double>(), 0.25 * (log_z - 0.5) + 0.75 * log_z, 1e-12);
}

TEST(SoftCrossEntropy, GradientsMatchDifferences) {
  const auto labels = some_labels(9);
  const auto teacher = at::softmax(random_tensor({9, 11}, 5), 1);
  expect_gradients_match_differences(
      [&](const Tensors& in) { return soft_cross_entropy(in[0], in[1], labels, 0.7, 1.7, rows_of(teacher)); },
      {random_tensor({9, 4}, 1), random_tensor({11, 4}, 2)}, 44, 1e-6);
}

// The last shape takes two blocks. Gradients are differences of two probabilities, rounded to f32 each: what cancels is
// left to their error.
TEST(SoftCrossEntropy, MatchesThePlainCompositionOverShapes) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16})
    for (const auto& [tokens, d_model, vocab] :
         std::vector<std::array<int64_t, 3>>{{1, 1, 2}, {7, 16, 64}, {33, 64, 130}, {100, 64, 70016}}) {
      SCOPED_TRACE(testing::Message() << toString(dtype) << " " << tokens << " " << d_model << " " << vocab);
      const auto labels = some_labels(tokens);
      const auto teacher = at::softmax(random_tensor({tokens, vocab}, 5), 1);
      const auto given = rows_of(teacher.to(dtype == at::kDouble ? at::kDouble : at::kFloat));
      expect_same_as_f64([&](const Tensors& in) { return soft_cross_entropy(in[0], in[1], labels, 0.4, 1.5, given); },
                         [&](const Tensors& in) { return plain(in, labels, 0.4, 1.5, teacher); },
                         {random_tensor({tokens, d_model}, 1, dtype), random_tensor({vocab, d_model}, 2, dtype, 0.3)},
                         // f32: sums of exponentials over 70,016 tokens, and differences of such sums.
                         dtype == at::kFloat ? 1e-5 : tolerance_of(dtype, d_model));
    }
}

TEST(SoftCrossEntropy, AsksTheTeacherOnceForEveryKeptToken) {
  const auto labels = some_labels(40);
  const auto teacher = at::softmax(random_tensor({40, 8}, 5), 1);
  std::vector<int64_t> asked;
  evaluate(
      [&](const Tensors& in) {
        return soft_cross_entropy(in[0], in[1], labels, 1.0, 1.0, [&](const at::Tensor& tokens) {
          for (int64_t n = 0; n < tokens.size(0); ++n) asked.push_back(tokens[n].item<int64_t>());
          return teacher.index_select(0, tokens);
        });
      },
      {random_tensor({40, 4}, 1), random_tensor({8, 4}, 2)});
  std::vector<int64_t> kept;
  for (int64_t token = 0; token < 40; ++token)
    if (labels[token].item<int64_t>() >= 0) kept.push_back(token);
  EXPECT_EQ(asked, kept);
}

TEST(SoftCrossEntropy, RefusesProbabilitiesOfAnotherVocabulary) {
  const auto wrong = [](const at::Tensor& tokens) { return at::zeros({tokens.size(0), 7}, at::kDouble); };
  EXPECT_THROW(soft_cross_entropy(random_tensor({3, 4}, 1), random_tensor({8, 4}, 2), some_labels(3), 1.0, 1.0, wrong),
               Error);
}

}  // namespace
}  // namespace switchyard::ops
