// Whether a row's result depends on the rows computed beside it: never, but for what two products promise less of.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/randint.h>
#include <gtest/gtest.h>

#include <functional>

#include "kernels/brgemm.h"
#include "ops/attention.h"
#include "ops/backend.h"
#include "ops/cross_entropy.h"
#include "ops/experts.h"
#include "ops/gradient_check.h"
#include "ops/layers.h"
#include "ops/router.h"

namespace switchyard::ops {
namespace {

using test::random_tensor;

constexpr int64_t kRows = 130;  // more than two blocks of 64 and a tail

// f maps rows to rows. Its last `count` rows of x alone against the same rows among more, for first <= count <= last.
void expect_independent_rows(const std::function<at::Tensor(const at::Tensor&)>& f, const at::Tensor& x,
                             int64_t first = 1, int64_t last = kRows) {
  const auto among_more = f(x.slice(0, x.size(0) - last));
  for (int64_t count = first; count <= last; ++count)
    ASSERT_TRUE(f(x.slice(0, x.size(0) - count)).equal(among_more.slice(0, last - count)))
        << count << " rows differ from themselves among " << last;
}

TEST(Rows, RouterLogitsAndChoices) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const auto& [d_model, num_experts] :
         std::vector<std::array<int64_t, 2>>{{7, 3}, {64, 8}, {96, 1}, {130, 100}}) {
      SCOPED_TRACE(testing::Message() << d_model << " x " << num_experts);
      const auto weight = random_tensor({num_experts, d_model}, 2, at::kFloat),
                 bias = random_tensor({num_experts}, 3, at::kFloat);
      const auto x = random_tensor({kRows, d_model}, 1, dtype);
      const auto logits = [&](const at::Tensor& rows) { return router_logits(rows, weight, bias, {}); };
      expect_independent_rows(logits, x);
      const int64_t width = std::min<int64_t>(2, num_experts);
      expect_independent_rows(
          [&](const at::Tensor& rows) {
            return experts_of_tokens(
                route(logits(rows), {},
                      {.num_selected_experts = width, .group_size = kRows, .expert_capacity = {kRows}}),
                rows.size(0), width);
          },
          x);
    }
}

// Up to eight rows of a matrix take a product of their own, which adds in another order than that of more rows.
TEST(Rows, ProductsUpToEightAndBeyond) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto x = random_tensor({kRows, 128}, 1, dtype), weight = random_tensor({192, 128}, 2, dtype);
    if (!is_fused(x, Kernel::kPanels, {128, 192})) GTEST_SKIP() << "this processor has no brgemm for " << dtype;
    const auto product = [&](const at::Tensor& rows) { return linear(rows, weight); };
    expect_independent_rows(product, x, 1, 8);
    expect_independent_rows(product, x, 9, kRows);
    const auto logits = [&](const at::Tensor& rows) { return vocabulary_logits(rows, weight, 0.5); };
    expect_independent_rows(logits, x, 1, 8);
    expect_independent_rows(logits, x, 9, kRows);
    const auto wi = random_tensor({1, 64, 128}, 3, dtype), wo = random_tensor({1, 128, 64}, 4, dtype);
    const auto expert = [&](const at::Tensor& rows) {
      return expert_rows(rows, make_dispatch(at::arange(rows.size(0), at::kLong), {rows.size(0)}), wi, {}, wo, {});
    };
    expect_independent_rows(expert, x, 1, 8);
    expect_independent_rows(expert, x, 9, kRows);
  }
}

TEST(Rows, Norm) {
  for (const int64_t d_model : {7, 64, 144}) {
    const auto scale = random_tensor({d_model}, 2, at::kFloat);
    for (const auto out_dtype : {at::kFloat, at::kBFloat16})
      expect_independent_rows([&](const at::Tensor& rows) { return rms_norm(rows, scale, 1e-6, out_dtype); },
                              random_tensor({kRows, d_model}, 1, at::kFloat));
  }
}

// Every row's cross entropy is computed in blocks of sixteen, alone too.
TEST(Rows, LabelLogProbabilities) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto x = random_tensor({kRows, 64}, 1, dtype), weight = random_tensor({200, 64}, 2, dtype);
    if (!is_fused(x, Kernel::kPanels, {64})) GTEST_SKIP() << "this processor has no brgemm for " << dtype;
    const auto labels = at::randint(0, 200, {kRows}, at::kLong);
    expect_independent_rows(
        [&](const at::Tensor& rows) {
          return label_log_probabilities(rows, weight, labels.slice(0, kRows - rows.size(0)), 0.5);
        },
        x);
  }
}

// Examples of a batch; the queries of one example are no rows in this sense (see ops/attention.h).
TEST(Rows, ExamplesOfAttention) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t queries : {1, 3, 70}) {
      const auto k = random_tensor({9, 80, 64}, 2, dtype), v = random_tensor({9, 80, 64}, 3, dtype);
      const auto q = random_tensor({9, queries, 64}, 1, dtype);
      expect_independent_rows(
          [&](const at::Tensor& rows) {
            const int64_t from = 9 - rows.size(0);
            return attention(rows, k.slice(0, from), v.slice(0, from), {}, {}, {.num_heads = 4});
          },
          q, 1, 9);
    }
}

}  // namespace
}  // namespace switchyard::ops
