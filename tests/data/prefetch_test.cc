#include "data/prefetch.h"

#include <gmock/gmock.h>

#include <atomic>

#include "text/scratch.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Row r of step s holds 7 s + r.
class Numbers : public ExampleSource {
 public:
  Batch rows(int64_t step, int64_t first, int64_t count) const override {
    check_rows(shape(), first, count);
    if (step == failing_step) throw Error("this step cannot be read");
    ++num_made;
    Batch batch;
    batch.batch_size = count;
    batch.first_example = first;
    for (int64_t row = first; row < first + count; ++row)
      batch.encoder_input_tokens.push_back(static_cast<int32_t>(step * 7 + row));
    return batch;
  }
  SourceShape shape() const override { return {.batch_size = 4, .encoder_length = 1, .decoder_length = 1}; }
  int64_t examples_per_epoch() const override { return 0; }

  int64_t failing_step = -1;
  mutable std::atomic<int64_t> num_made{0};
};

TEST(BatchPrefetcher, GivesEveryStepInOrder) {
  const Numbers numbers;
  for (const size_t depth : {1, 2, 8}) {
    BatchPrefetcher prefetcher(numbers, {.first_step = 5, .end_step = 205, .depth = depth});
    for (int32_t step = 5; step < 205; ++step)
      EXPECT_THAT(prefetcher.next().encoder_input_tokens,
                  ElementsAre(step * 7, step * 7 + 1, step * 7 + 2, step * 7 + 3));
    EXPECT_THAT(error_of([&] { prefetcher.next(); }), HasSubstr("no batch after step 204"));
  }
}

TEST(BatchPrefetcher, GivesTheRowsThatOneRankWorksOn) {
  const Numbers numbers;
  BatchPrefetcher prefetcher(numbers, {.first_row = 1, .num_rows = 2});
  EXPECT_THAT(prefetcher.next().encoder_input_tokens, ElementsAre(1, 2));
  const Batch second = prefetcher.next();
  EXPECT_THAT(second.encoder_input_tokens, ElementsAre(8, 9));
  EXPECT_EQ(second.first_example, 1);
}

TEST(BatchPrefetcher, StaysWithinItsDepthAndStopsWhenDropped) {
  const Numbers numbers;
  {
    BatchPrefetcher prefetcher(numbers, {.depth = 3});
    prefetcher.next();
    prefetcher.next();
    EXPECT_LE(numbers.num_made, 2 + 3);
  }
  EXPECT_LE(numbers.num_made, 2 + 3);
  EXPECT_GE(numbers.num_made, 2);
  const BatchPrefetcher never_asked(numbers);
}

TEST(BatchPrefetcher, PassesExceptionsOnAtTheirStep) {
  Numbers numbers;
  numbers.failing_step = 2;
  BatchPrefetcher prefetcher(numbers, {.end_step = 10, .depth = 4});
  EXPECT_EQ(prefetcher.next().encoder_input_tokens.at(0), 0);
  EXPECT_EQ(prefetcher.next().encoder_input_tokens.at(0), 7);
  for (int call = 0; call < 2; ++call) EXPECT_EQ(error_of([&] { prefetcher.next(); }), "this step cannot be read");
}

}  // namespace
}  // namespace switchyard
