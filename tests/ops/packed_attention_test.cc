#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <array>
#include <ostream>
#include <string>
#include <vector>

#include "base/error.h"
#include "ops/attention.h"
#include "ops/gradient_check.h"

namespace switchyard::ops {
namespace {

using test::random_tensor;
using test::relative_error;
using test::Tensors;

// Lengths of the examples of each row, of queries and of keys.
struct Case {
  std::string name;
  int64_t query_length, key_length, d_kv;
  std::vector<std::vector<int64_t>> queries, keys;
  bool causal = false, bias = false;

  static constexpr int64_t kHeads = 2;
  AttentionOptions options() const {
    return {.num_heads = kHeads,
            .causal = causal,
            .segments = {segments(queries, query_length), segments(keys, key_length)}};
  }
  static at::Tensor segments(const std::vector<std::vector<int64_t>>& rows, int64_t length) {
    auto segment = at::zeros({static_cast<int64_t>(rows.size()), length}, at::kLong);
    for (size_t row = 0; row < rows.size(); ++row)
      for (int64_t n = 0, first = 0; n < static_cast<int64_t>(rows[row].size()); first += rows[row][n++])
        segment[static_cast<int64_t>(row)].slice(0, first, first + rows[row][n]).fill_(n + 1);
    return segment;
  }
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

std::vector<Case> cases() {
  const std::vector<std::vector<int64_t>> small = {{3, 1, 5}, {9}, {2, 2}}, tiles = {{64, 128, 64}, {100, 29}, {256}};
  return {{"encoder, small", 10, 10, 16, small, small, false, true},
          {"encoder, tiles of 64", 256, 256, 64, tiles, tiles, false, true},
          {"decoder, small", 10, 10, 16, small, small, true, true},
          {"decoder, tiles of 64", 256, 256, 64, tiles, tiles, true, true},
          {"cross, small", 10, 20, 16, small, {{4, 8, 8}, {17}, {1, 19}}},
          {"cross, tiles of 64", 128, 256, 64, {{64, 20, 44}, {1, 2}, {128}}, tiles},
          {"cross, an example without keys", 8, 12, 16, {{4, 4}}, {{5}}}};
}

// q, k, v and, where there is one, the bias.
Tensors make_inputs(const Case& c, at::ScalarType dtype) {
  const auto batch = static_cast<int64_t>(c.queries.size()), width = Case::kHeads * c.d_kv;
  Tensors inputs = {random_tensor({batch, c.query_length, width}, 1, dtype, 0.5),
                    random_tensor({batch, c.key_length, width}, 2, dtype, 0.5),
                    random_tensor({batch, c.key_length, width}, 3, dtype)};
  if (c.bias)
    inputs.push_back(
        random_tensor({Case::kHeads, c.query_length + c.key_length - 1}, 4, dtype == at::kDouble ? dtype : at::kFloat));
  return inputs;
}

at::Tensor packed(const Case& c, const Tensors& x) {
  return attention(x[0], x[1], x[2], c.bias ? x[3] : at::Tensor(), {}, c.options());
}

// Every example in a row of its own, with the part of the bias that its distances have.
at::Tensor one_by_one(const Case& c, const Tensors& x) {
  auto out = at::zeros(x[0].sizes(), x[0].options());
  for (size_t row = 0; row < c.queries.size(); ++row) {
    int64_t query = 0, key = 0;
    for (size_t n = 0; n < c.queries[row].size(); query += c.queries[row][n], key += c.keys[row][n], ++n) {
      if (n >= c.keys[row].size()) break;
      const int64_t queries = c.queries[row][n], keys = c.keys[row][n];
      const auto part = [&](const at::Tensor& all, int64_t first, int64_t size) {
        const auto index = static_cast<int64_t>(row);
        return all.slice(0, index, index + 1).slice(1, first, first + size);
      };
      const int64_t first_distance = c.query_length - queries;
      part(out, query, queries)
          .copy_(attention(part(x[0], query, queries), part(x[1], key, keys), part(x[2], key, keys),
                           c.bias ? x[3].slice(1, first_distance, first_distance + queries + keys - 1) : at::Tensor(),
                           {}, {.num_heads = Case::kHeads, .causal = c.causal}));
    }
  }
  return out;
}

class PackedAttention : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Rows, PackedAttention, testing::ValuesIn(cases()));

TEST_P(PackedAttention, IsThatOfEachExampleAlone) {
  const Case& c = GetParam();
  test::expect_same_as_f64([&](const Tensors& x) { return packed(c, x); },
                           [&](const Tensors& x) { return one_by_one(c, x); }, make_inputs(c, at::kDouble), 1e-12);
}

TEST_P(PackedAttention, ReferenceGradientsMatchDifferences) {
  const Case& c = GetParam();
  if (c.query_length > 64) GTEST_SKIP() << "the small shapes show it";
  test::expect_gradients_match_differences([&](const Tensors& x) { return packed(c, x); }, make_inputs(c, at::kDouble));
}

// Roundings of the format that a result meets, as in attention_test.cc.
double tolerance(at::ScalarType dtype) { return dtype == at::kBFloat16 ? 1.2e-2 : 6e-6; }

TEST_P(PackedAttention, FusedMatchesTheReference) {
  const Case& c = GetParam();
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    test::expect_same_as_f64([&](const Tensors& x) { return packed(c, x); },
                             [&](const Tensors& x) { return packed(c, x); }, make_inputs(c, dtype), tolerance(dtype));
}

// Packing changes no bit of an example: outputs with and without gradients, and the gradients of q, k and v.
TEST_P(PackedAttention, FusedHasTheBitsOfEachExampleAlone) {
  const Case& c = GetParam();
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto inputs = make_inputs(c, dtype);
    const auto together = test::evaluate([&](const Tensors& x) { return packed(c, x); }, inputs);
    const auto alone = test::evaluate([&](const Tensors& x) { return one_by_one(c, x); }, inputs);
    EXPECT_TRUE(together.value.equal(alone.value)) << dtype;
    for (size_t n = 0; n < 3; ++n) EXPECT_TRUE(together.gradients[n].equal(alone.gradients[n])) << dtype << ' ' << n;
    EXPECT_TRUE(packed(c, inputs).to(at::kDouble).equal(together.value)) << dtype;
  }
}

TEST_P(PackedAttention, DoesNotDependOnTheNumberOfThreads) {
  const Case& c = GetParam();
  const int threads = at::get_num_threads();
  const auto inputs = make_inputs(c, at::kBFloat16);
  at::set_num_threads(1);
  const auto one = test::evaluate([&](const Tensors& x) { return packed(c, x); }, inputs);
  at::set_num_threads(2);
  const auto two = test::evaluate([&](const Tensors& x) { return packed(c, x); }, inputs);
  at::set_num_threads(threads);
  EXPECT_TRUE(one.value.equal(two.value));
  for (size_t n = 0; n < inputs.size(); ++n) EXPECT_TRUE(one.gradients[n].equal(two.gradients[n])) << n;
}

TEST(PackedAttentionRows, PaddingIsZeroInEveryForm) {
  const Case c{"", 10, 10, 16, {{3, 4}}, {{3, 4}}, false, true};
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto result = test::evaluate([&](const Tensors& x) { return packed(c, x); }, make_inputs(c, dtype));
    EXPECT_EQ(result.value.slice(1, 7).abs().max().item<double>(), 0.0) << dtype;
    EXPECT_GT(result.value.slice(1, 0, 7).abs().min().item<double>(), 0.0) << dtype;
    for (size_t n = 0; n < 3; ++n)
      EXPECT_EQ(result.gradients[n].slice(1, 7).abs().max().item<double>(), 0.0) << dtype << ' ' << n;
  }
}

TEST(PackedAttentionRows, SegmentsThatAreNoneAreRefused) {
  const Case c{"", 6, 6, 16, {{3, 3}}, {{3, 3}}};
  const auto x = make_inputs(c, at::kFloat);
  const auto refusal = [&](const at::Tensor& query, const at::Tensor& key, bool causal, const at::Tensor& mask) {
    try {
      attention(x[0], x[1], x[2], {}, mask, {.num_heads = 2, .causal = causal, .segments = {query, key}});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  const auto rows = [](std::vector<int64_t> segment) {
    auto row = at::zeros({1, static_cast<int64_t>(segment.size())}, at::kLong);
    std::copy(segment.begin(), segment.end(), row.mutable_data_ptr<int64_t>());
    return row;
  };
  const auto good = rows({1, 1, 1, 2, 2, 2});
  EXPECT_EQ(refusal(good, good, true, {}), "accepted");
  EXPECT_NE(refusal(rows({1, 1, 2, 2, 1, 1}), good, false, {}).find("segment 1 at 4 behind segment 2"),
            std::string::npos);
  EXPECT_NE(refusal(good, rows({1, 1, 0, 2, 2, 2}), false, {}).find("the keys' row 0 has segment 0 at 2"),
            std::string::npos);
  EXPECT_NE(refusal(good, rows({1, 1, 1, 1, 2, 2}), true, {}).find("causal attention expects"), std::string::npos);
  EXPECT_NE(refusal(good, {}, false, {}).find("expected int64 segments [1, 6]"), std::string::npos);
  EXPECT_NE(refusal(good, good, false, good.ne(0)).find("no key_mask"), std::string::npos);
}

}  // namespace
}  // namespace switchyard::ops
