// T5's relative position buckets and the bias by distance that is made of them.
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <limits>
#include <vector>

#include "base/error.h"
#include "ops/attention.h"
#include "ops/gradient_check.h"

namespace switchyard::ops {
namespace {

using test::random_tensor;

// Bucket ranges of T5's default (32 buckets, distance 128), written out from the published formula.
struct BucketRange {
  int64_t from, to, bucket;
};
constexpr int64_t kFar = std::numeric_limits<int64_t>::max();

TEST(RelativePositionBucket, CausalRanges) {
  const std::vector<BucketRange> ranges = {{16, 18, 16}, {19, 20, 17}, {21, 23, 18},  {24, 26, 19},
                                           {27, 30, 20}, {31, 34, 21}, {35, 39, 22},  {40, 45, 23},
                                           {46, 51, 24}, {52, 58, 25}, {59, 66, 26},  {67, 76, 27},
                                           {77, 86, 28}, {87, 98, 29}, {99, 112, 30}, {113, 5000, 31}};
  for (int64_t distance = 0; distance < 16; ++distance)
    EXPECT_EQ(relative_position_bucket(-distance, false, 32, 128), distance) << distance;
  for (const auto& range : ranges)
    for (int64_t distance = range.from; distance <= range.to; ++distance)
      EXPECT_EQ(relative_position_bucket(-distance, false, 32, 128), range.bucket) << distance;
  for (const int64_t future : {int64_t{1}, int64_t{7}, int64_t{500}, kFar})
    EXPECT_EQ(relative_position_bucket(future, false, 32, 128), 0) << future;
  EXPECT_EQ(relative_position_bucket(std::numeric_limits<int64_t>::min(), false, 32, 128), 31);
}

TEST(RelativePositionBucket, BidirectionalRanges) {
  const std::vector<BucketRange> ranges = {
      {0, 0, 0},  {1, 1, 1},   {2, 2, 2},    {3, 3, 3},    {4, 4, 4},    {5, 5, 5},    {6, 6, 6},    {7, 7, 7},
      {8, 11, 8}, {12, 15, 9}, {16, 22, 10}, {23, 31, 11}, {32, 45, 12}, {46, 63, 13}, {64, 90, 14}, {91, 5000, 15}};
  for (const auto& range : ranges)
    for (int64_t distance = range.from; distance <= range.to; ++distance) {
      EXPECT_EQ(relative_position_bucket(-distance, true, 32, 128), range.bucket) << distance;
      if (distance > 0) {
        EXPECT_EQ(relative_position_bucket(distance, true, 32, 128), range.bucket + 16) << distance;
      }
    }
  EXPECT_EQ(relative_position_bucket(kFar, true, 32, 128), 31);
  EXPECT_EQ(relative_position_bucket(std::numeric_limits<int64_t>::min(), true, 32, 128), 15);
}

// Entry e of the table is distance e - (query_length - 1) - query_offset, for the whole and for one decoding step.
TEST(RelativeBias, GathersTheBucketOfEachDistance) {
  const auto weight = random_tensor({32, 3}, 1, at::kFloat);
  for (const bool bidirectional : {true, false})
    for (const auto& [query_length, key_length, offset] :
         std::vector<std::array<int64_t, 3>>{{5, 9, 0}, {1, 40, 39}, {3, 43, 40}}) {
      const auto table = relative_bias_by_distance(weight, {.query_length = query_length,
                                                            .key_length = key_length,
                                                            .query_offset = offset,
                                                            .bidirectional = bidirectional});
      ASSERT_EQ(table.sizes(), (std::vector<int64_t>{3, query_length + key_length - 1}));
      for (int64_t query = 0; query < query_length; ++query)
        for (int64_t key = 0; key < key_length; ++key) {
          const int64_t bucket = relative_position_bucket(key - (query + offset), bidirectional, 32, 128);
          for (int64_t head = 0; head < 3; ++head)
            EXPECT_EQ(table[head][key - query + query_length - 1].item<float>(), weight[bucket][head].item<float>());
        }
    }
}

TEST(RelativeBias, GradientCountsTheDistancesOfEachBucket) {
  auto weight = random_tensor({32, 2}, 1, at::kFloat).requires_grad_(true);
  const auto table = relative_bias_by_distance(weight, {.query_length = 20, .key_length = 30});
  const auto gradient = torch::autograd::grad({table.sum()}, {weight})[0];
  std::vector<int64_t> counts(32, 0);
  for (int64_t distance = -19; distance < 30; ++distance) ++counts[relative_position_bucket(distance, true, 32, 128)];
  for (int64_t bucket = 0; bucket < 32; ++bucket)
    EXPECT_EQ(gradient[bucket][1].item<float>(), static_cast<float>(counts[bucket]));
}

TEST(RelativeBias, RefusesImpossibleBuckets) {
  const auto weight = random_tensor({3, 2}, 1, at::kFloat);
  EXPECT_THROW(relative_bias_by_distance(weight, {.query_length = 4, .key_length = 4, .num_buckets = 3}), Error);
  EXPECT_THROW(relative_bias_by_distance(weight, {.query_length = 4, .key_length = 4}), Error);
}

}  // namespace
}  // namespace switchyard::ops
