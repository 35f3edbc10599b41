// Attention of decoding: rows of different lengths over the slots of a cache.
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "ops/attention.h"
#include "ops/attention_reference.h"
#include "ops/gradient_check.h"

namespace switchyard::ops {
namespace {

using test::random_tensor;
using test::relative_error;

// Rows of different lengths over shared slots: each is what attention() gives it alone, with its own keys and offset.
TEST(CachedAttention, EachRowSeesItsOwnKeys) {
  const int64_t heads = 3, capacity = 21, buckets = 8;
  const CachedKeys keys{.slot = {4, 0, 4, 2}, .num_keys = {17, 5, 21, 9}};
  for (const auto& [dtype, tolerance] :
       {std::pair{at::kDouble, 1e-12}, std::pair{at::kFloat, 1e-5}, std::pair{at::kBFloat16, 2e-2}})
    for (const int64_t queries : {1, 5})
      for (const bool causal : {true, false}) {
        SCOPED_TRACE(testing::Message() << dtype << ", " << queries << " queries, causal " << causal);
        const auto q = random_tensor({4, queries, heads * 24}, 1, dtype);
        const auto k = random_tensor({6, capacity, heads * 24}, 2, dtype);
        const auto v = random_tensor({6, capacity, heads * 24}, 3, dtype);
        const auto weight = random_tensor({buckets, heads}, 4, dtype == at::kDouble ? at::kDouble : at::kFloat);
        const auto bias = [&](int64_t key_length) {
          return relative_bias_by_distance(weight, {.query_length = queries,
                                                    .key_length = key_length,
                                                    .query_offset = key_length - queries,
                                                    .bidirectional = false,
                                                    .num_buckets = buckets,
                                                    .max_distance = 12});
        };
        auto mask = at::ones({6, capacity}, at::kBool);
        mask[2].slice(0, 3, 5).fill_(false);
        mask[4].slice(0, 0, 2).fill_(false);
        const AttentionOptions options{.num_heads = heads, .causal = causal, .query_offset = capacity - queries};
        const auto together = cached_attention(q, k, v, bias(capacity), mask, keys, options);
        for (int64_t row = 0; row < 4; ++row) {
          const int64_t slot = keys.slot[row], num_keys = keys.num_keys[row];
          const auto own = [&](const at::Tensor& x) { return x.slice(0, slot, slot + 1).slice(1, 0, num_keys); };
          const auto alone =
              reference::attention(q.slice(0, row, row + 1), own(k), own(v), bias(num_keys), own(mask),
                                   {.num_heads = heads, .causal = causal, .query_offset = num_keys - queries});
          EXPECT_LT(relative_error(together[row], alone[0]), tolerance) << "row " << row;
          // To the bit whatever the other rows are, and however long the longest is.
          const auto by_itself =
              cached_attention(q.slice(0, row, row + 1), k.slice(1, 0, num_keys), v.slice(1, 0, num_keys),
                               bias(num_keys), mask.slice(1, 0, num_keys), {{slot}, {num_keys}},
                               {.num_heads = heads, .causal = causal, .query_offset = num_keys - queries});
          EXPECT_TRUE(by_itself[0].equal(together[row])) << "row " << row;
        }
      }
}

TEST(CachedAttention, RefusesSlotsAndNumbersThatAreNotThere) {
  const auto q = random_tensor({1, 2, 16}, 1, at::kFloat), k = random_tensor({3, 8, 16}, 2, at::kFloat);
  const auto attend = [&](int64_t slot, int64_t num_keys) {
    return cached_attention(q, k, k, {}, {}, {{slot}, {num_keys}}, {.num_heads = 2, .causal = true, .query_offset = 6});
  };
  EXPECT_NO_THROW(attend(2, 2));
  EXPECT_THROW(attend(3, 2), Error);
  EXPECT_THROW(attend(-1, 2), Error);
  EXPECT_THROW(attend(0, 9), Error);
  EXPECT_THROW(attend(0, 1), Error) << "the first of two queries would see no key";
}

}  // namespace
}  // namespace switchyard::ops
