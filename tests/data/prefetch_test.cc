#include "data/prefetch.h"

#include <gmock/gmock.h>

#include <atomic>

#include "text/scratch.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;

Batch numbered(int64_t step) {
  Batch batch;
  batch.batch_size = 1;
  batch.first_example = step;
  batch.encoder_input_tokens = {static_cast<int32_t>(step * 7)};
  return batch;
}

TEST(BatchPrefetcher, GivesEveryStepInOrder) {
  for (const size_t depth : {1, 2, 8}) {
    BatchPrefetcher prefetcher(numbered, 5, 205, depth);
    for (int64_t step = 5; step < 205; ++step) {
      const Batch batch = prefetcher.next();
      EXPECT_EQ(batch.first_example, step);
      EXPECT_EQ(batch.encoder_input_tokens.at(0), step * 7);
    }
    EXPECT_THAT(error_of([&] { prefetcher.next(); }), HasSubstr("no batch after step 204"));
  }
}

TEST(BatchPrefetcher, StaysWithinItsDepthAndStopsWhenDropped) {
  std::atomic<int64_t> num_made{0};
  {
    BatchPrefetcher prefetcher(
        [&](int64_t step) {
          ++num_made;
          return numbered(step);
        },
        0, 1'000'000, 3);
    prefetcher.next();
    prefetcher.next();
    EXPECT_LE(num_made, 2 + 3);
  }
  EXPECT_LE(num_made, 2 + 3);
  EXPECT_GE(num_made, 2);
  const BatchPrefetcher never_asked(numbered, 0);
}

TEST(BatchPrefetcher, PassesExceptionsOnAtTheirStep) {
  BatchPrefetcher prefetcher(
      [](int64_t step) {
        if (step == 2) throw Error("step 2 cannot be read");
        return numbered(step);
      },
      0, 10, 4);
  EXPECT_EQ(prefetcher.next().first_example, 0);
  EXPECT_EQ(prefetcher.next().first_example, 1);
  for (int call = 0; call < 2; ++call) EXPECT_EQ(error_of([&] { prefetcher.next(); }), "step 2 cannot be read");
}

}  // namespace
}  // namespace switchyard
