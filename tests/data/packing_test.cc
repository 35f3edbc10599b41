#include "data/packing.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "base/random.h"
#include "text/scratch.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Ids = std::vector<int32_t>;

// Given examples, again and again.
class Given : public ExampleSource {
 public:
  Given(std::vector<std::pair<Ids, Ids>> examples, int64_t encoder_length, int64_t decoder_length)
      : examples_(std::move(examples)), shape_{1, encoder_length, decoder_length} {}
  Batch rows(int64_t step, int64_t first, int64_t count) const override {
    check_rows(shape_, first, count);
    const auto number = static_cast<size_t>(step) % examples_.size();
    Batch batch{.batch_size = count,
                .encoder_length = shape_.encoder_length,
                .decoder_length = shape_.decoder_length,
                .encoder_input_tokens = examples_[number].first,
                .decoder_target_tokens = examples_[number].second,
                .part = {static_cast<int32_t>(number % 3)}};
    batch.encoder_input_tokens.resize(static_cast<size_t>(shape_.encoder_length));
    batch.decoder_target_tokens.resize(static_cast<size_t>(shape_.decoder_length));
    return batch;
  }
  SourceShape shape() const override { return shape_; }
  int64_t examples_per_epoch() const override { return static_cast<int64_t>(examples_.size()); }

 private:
  std::vector<std::pair<Ids, Ids>> examples_;
  SourceShape shape_;
};

PackedSource packed(std::vector<std::pair<Ids, Ids>> examples, int64_t encoder_length, int64_t decoder_length,
                    int64_t batch_size) {
  return PackedSource(std::make_unique<Given>(std::move(examples), encoder_length, decoder_length), batch_size);
}

// Example n has between 2 and 18 inputs and 1 to 5 targets, all n + 1.
PackedSource many(int64_t batch_size) {
  std::vector<std::pair<Ids, Ids>> examples;
  NoiseStream noise({.seed = 5});
  for (int32_t n = 0; n < 400; ++n)
    examples.emplace_back(Ids(2 + noise.below(17), n + 1), Ids(1 + noise.below(5), n + 1));
  return packed(std::move(examples), 40, 12, batch_size);
}

// seqio's TrimAndPack fixtures.
TEST(Packing, IsSeqios) {
  const Batch batch = packed({{{7, 8, 5, 1}, {3, 9, 1}}, {{8, 4, 9, 3, 1}, {4, 1}}}, 10, 7, 1).batch(0);
  EXPECT_THAT(batch.encoder_input_tokens, ElementsAre(7, 8, 5, 1, 8, 4, 9, 3, 1, 0));
  EXPECT_THAT(batch.encoder_segment, ElementsAre(1, 1, 1, 1, 2, 2, 2, 2, 2, 0));
  EXPECT_THAT(batch.decoder_target_tokens, ElementsAre(3, 9, 1, 4, 1, 0, 0));
  EXPECT_THAT(batch.decoder_segment, ElementsAre(1, 1, 1, 2, 2, 0, 0));
  const Batch without_eos = packed({{{7, 8, 5}, {3, 9}}, {{8, 4, 9, 3}, {4}}}, 8, 5, 1).batch(0);
  EXPECT_THAT(without_eos.encoder_input_tokens, ElementsAre(7, 8, 5, 8, 4, 9, 3, 0));
  EXPECT_THAT(without_eos.encoder_segment, ElementsAre(1, 1, 1, 2, 2, 2, 2, 0));
  EXPECT_THAT(without_eos.decoder_target_tokens, ElementsAre(3, 9, 4, 0, 0));
  EXPECT_THAT(without_eos.decoder_segment, ElementsAre(1, 1, 2, 0, 0));
}

// What does not fit beside another stands alone; seqio cuts such inputs while packing, here the task has done it.
TEST(Packing, ExamplesTooLongToShareStandAlone) {
  const auto source = packed({{{7, 8, 5, 6, 9, 4, 1}, {3, 9, 1}}, {{8, 4, 9, 3, 5, 7, 9}, {4, 1}}}, 7, 3, 1);
  const Batch first = source.batch(0), second = source.batch(1);
  EXPECT_THAT(first.encoder_input_tokens, ElementsAre(7, 8, 5, 6, 9, 4, 1));
  EXPECT_THAT(first.decoder_target_tokens, ElementsAre(3, 9, 1));
  EXPECT_THAT(second.encoder_input_tokens, ElementsAre(8, 4, 9, 3, 5, 7, 9));
  EXPECT_THAT(second.decoder_target_tokens, ElementsAre(4, 1, 0));
  EXPECT_THAT(second.decoder_segment, ElementsAre(1, 1, 0));
}

// The first row with room, in inputs and in targets; the step ends where none has.
TEST(Packing, IsFirstFit) {
  const auto source = packed({{Ids(6, 1), {1}},
                              {Ids(6, 2), {2}},
                              {Ids(2, 3), Ids(4, 3)},
                              {Ids(4, 4), {4}},
                              {{5}, {5}},
                              {Ids(3, 6), {6}},
                              {{7}, {7}}},
                             10, 4, 2);
  const Batch batch = source.batch(0);
  // 3 has no room for its targets beside 1 or 2, so the step ends.
  EXPECT_THAT(batch.row_example, ElementsAre(0, 1, 2));
  const Batch next = source.batch(1);
  EXPECT_THAT(next.encoder_input_tokens, ElementsAre(3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 5, 6, 6, 6, 7, 0));
  EXPECT_THAT(next.row_example, ElementsAre(0, 1, 5));
  EXPECT_EQ(next.num_examples(), 5);
  EXPECT_THAT(next.part, ElementsAre(2, 0, 1, 2, 0));
  EXPECT_EQ(next.first_example_of(1), 1U);
}

// Over many steps every example comes once an epoch, in order, whole.
TEST(Packing, TakesEveryExampleOnceAndWhole) {
  const auto source = many(4);
  int64_t next = 0;
  double filled = 0;
  for (int64_t step = 0; step < 60; ++step) {
    const Batch batch = source.batch(step);
    std::vector<int64_t> seen;
    for (int64_t row = 0; row < 4; ++row)
      for (int64_t n = row * 40; n < (row + 1) * 40; ++n) {
        const int32_t segment = batch.encoder_segment[static_cast<size_t>(n)];
        filled += segment != 0;
        if (segment != 0 && (n == row * 40 || batch.encoder_segment[static_cast<size_t>(n - 1)] != segment))
          seen.push_back(batch.encoder_input_tokens[static_cast<size_t>(n)] - 1);
      }
    std::sort(seen.begin(), seen.end(),
              [&](int64_t a, int64_t b) { return (a - next % 400 + 400) % 400 < (b - next % 400 + 400) % 400; });
    for (const int64_t example : seen) ASSERT_EQ(example, next++ % 400) << "step " << step;
    ASSERT_EQ(static_cast<int64_t>(seen.size()), batch.num_examples());
  }
  EXPECT_GT(next, 600);
  EXPECT_GT(filled / (60 * 4 * 40), 0.7);
}

// A source that is asked for a late step first, and for parts of batches, gives what one read in order gives.
TEST(Packing, ResumesAndCutsExactly) {
  const auto in_order = many(4), again = many(4);
  std::vector<Batch> batches;
  for (int64_t step = 0; step < 20; ++step) batches.push_back(in_order.batch(step));
  for (int64_t step = 19; step >= 0; step -= 3)
    for (int64_t row = 3; row >= 0; --row) {
      const Batch one = again.rows(step, row, 1);
      const auto& whole = batches[static_cast<size_t>(step)];
      const auto of = [&](const Ids& ids, int64_t length) {
        return Ids(ids.begin() + row * length, ids.begin() + (row + 1) * length);
      };
      EXPECT_EQ(one.encoder_input_tokens, of(whole.encoder_input_tokens, 40));
      EXPECT_EQ(one.decoder_segment, of(whole.decoder_segment, 12));
      EXPECT_THAT(one.row_example, ElementsAre(whole.row_example[static_cast<size_t>(row)],
                                               whole.row_example[static_cast<size_t>(row + 1)]));
      const auto begin = whole.part.begin();
      EXPECT_EQ(one.part, Ids(begin + static_cast<int64_t>(whole.first_example_of(row)),
                              begin + static_cast<int64_t>(whole.first_example_of(row + 1))));
    }
}

TEST(Packing, SaysWhatDoesNotFit) {
  EXPECT_THAT(error_of([] { packed({{{1}, {1}}}, 4, 4, 0); }), HasSubstr("batch_size 0"));
  EXPECT_THAT(error_of([] { packed({{{}, {1}}}, 4, 4, 1).batch(0); }), HasSubstr("example 0 is empty"));
  auto two = std::make_unique<PackedSource>(std::make_unique<Given>(Given({{{1}, {1}}}, 4, 4)), 2);
  EXPECT_THAT(error_of([&] { PackedSource(std::move(two), 1); }), HasSubstr("the source has 2"));
}

}  // namespace
}  // namespace switchyard
