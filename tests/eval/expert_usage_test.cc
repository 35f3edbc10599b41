#include "eval/expert_usage.h"

#include <ATen/ops/log.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

namespace switchyard {
namespace {

// Ids 5 and 6 go to expert 0, id 7 to expert 1, id 8 to both.
StackOutput routed(const at::Tensor& ids, int64_t capacity) {
  std::vector<double> rows;
  const auto flat = ids.reshape({-1});
  for (int64_t n = 0; n < flat.numel(); ++n) {
    const auto id = flat[n].item<int64_t>();
    const double first = id <= 6 ? 0.9 : id == 7 ? 0.2 : n % 2 == 0 ? 0.7 : 0.3;
    rows.insert(rows.end(), {first, 1.0 - first});
  }
  const auto logits = at::log(at::tensor(rows, at::kDouble)).view({-1, 2});
  StackOutput stack;
  stack.sparse_layers.push_back(
      {"encoder.1", logits, ops::route(logits, {}, {.group_size = flat.numel(), .expert_capacity = {capacity}}), {}});
  return stack;
}

TEST(ExpertUsage, TypicalTokensAreThoseAnExpertTakesMoreThanOthers) {
  const auto ids = at::tensor({5, 5, 5, 6, 7, 7, 8, 8}, at::kLong).view({2, 4});
  ExpertUsage usage;
  usage.add(routed(ids, 8), ids);
  usage.add(routed(ids, 8), ids);
  const auto layers = usage.summarise(2);
  ASSERT_EQ(layers.size(), 1U);
  EXPECT_EQ(layers[0].tokens, 16);
  EXPECT_EQ(layers[0].left_behind, 0);
  const auto& experts = layers[0].experts;
  ASSERT_EQ(experts.size(), 2U);
  EXPECT_EQ(experts[0].tokens, 10);
  EXPECT_DOUBLE_EQ(experts[0].load, 10.0 / 16.0);
  EXPECT_NEAR(experts[0].mean_gate, (8 * 0.9 + 2 * 0.7) / 10.0, 1e-12);
  ASSERT_EQ(experts[0].typical.size(), 2U);
  EXPECT_EQ(experts[0].typical[0].id, 5);
  EXPECT_EQ(experts[0].typical[0].count, 6);
  EXPECT_EQ(experts[0].typical[1].id, 6);
  ASSERT_EQ(experts[1].typical.size(), 2U);  // id 8: half of its appearances, above the expert's load of 6 / 16
  EXPECT_EQ(experts[1].typical[0].id, 7);
  EXPECT_DOUBLE_EQ(experts[1].typical[0].share, 1.0);
  EXPECT_EQ(experts[1].typical[1].id, 8);
  EXPECT_DOUBLE_EQ(experts[1].typical[1].share, 0.5);
}

TEST(ExpertUsage, CountsTokensWithoutAnExpert) {
  const auto ids = at::tensor({5, 5, 5, 6, 7, 7, 8, 8}, at::kLong).view({2, 4});
  ExpertUsage usage;
  usage.add(routed(ids, 2), ids);
  const auto layers = usage.summarise(3);
  EXPECT_EQ(layers[0].left_behind, 4);
  EXPECT_EQ(layers[0].experts[0].tokens, 2);
  EXPECT_EQ(layers[0].experts[0].typical.front().id, 5);
}

}  // namespace
}  // namespace switchyard
