#include "data/pretraining.h"

#include <gmock/gmock.h>

#include <numeric>
#include <set>
#include <thread>

#include "text/scratch.h"

namespace switchyard {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr SpecialTokens kSpecial{.eos_id = 1, .first_sentinel_id = 1'000'099, .num_sentinels = 100};

// Token n of the text is 10 + n, so that a batch tells where it came from.
TokenStore counting_tokens(int64_t size) {
  std::vector<int32_t> tokens(static_cast<size_t>(size));
  std::iota(tokens.begin(), tokens.end(), 10);
  return TokenStore::from_tokens(std::move(tokens));
}

void expect_equal(const Batch& a, const Batch& b) {
  EXPECT_EQ(a.batch_size, b.batch_size);
  EXPECT_EQ(a.first_example, b.first_example);
  EXPECT_EQ(a.encoder_length, b.encoder_length);
  EXPECT_EQ(a.decoder_length, b.decoder_length);
  EXPECT_EQ(a.encoder_input_tokens, b.encoder_input_tokens);
  EXPECT_EQ(a.decoder_target_tokens, b.decoder_target_tokens);
}

PretrainingOptions options_of(int64_t encoder_length, int64_t batch_size, uint64_t seed = 0) {
  return {.shape = {.encoder_length = encoder_length}, .seed = seed, .batch_size = batch_size};
}

TEST(PretrainingData, FillsBothSidesExactly) {
  const PretrainingData data(counting_tokens(20'000), kSpecial, options_of(512, 4));
  EXPECT_EQ(data.segment_shape().segment_length, 568);
  EXPECT_EQ(data.segment_shape().decoder_length, 114);
  EXPECT_EQ(data.segments_per_epoch(), 35);
  EXPECT_EQ(data.steps_per_epoch(), 9);
  const Batch batch = data.batch(3);
  ASSERT_EQ(batch.encoder_input_tokens.size(), 4u * 512u);
  ASSERT_EQ(batch.decoder_target_tokens.size(), 4u * 114u);
  for (int64_t row = 0; row < 4; ++row) {
    const auto inputs = std::span(batch.encoder_input_tokens).subspan(static_cast<size_t>(row * 512), 512);
    const auto targets = std::span(batch.decoder_target_tokens).subspan(static_cast<size_t>(row * 114), 114);
    EXPECT_EQ(std::count(inputs.begin(), inputs.end(), 0), 0);
    EXPECT_EQ(inputs.back(), 1);
    EXPECT_EQ(targets.back(), 1);
    EXPECT_EQ(targets.front(), 1'000'099);
    // Ordinary tokens of both sides are the segment.
    std::multiset<int32_t> seen;
    for (const auto& side : {inputs, targets}) {
      for (const int32_t id : side) {
        if (id >= 10 && id < 1'000'000) seen.insert(id);
      }
    }
    const auto segment = data.segment(3 * 4 + row);
    EXPECT_EQ(seen, std::multiset<int32_t>(segment.begin(), segment.end()));
  }
}

TEST(PretrainingData, BatchIsAPureFunctionOfSeedAndStep) {
  const PretrainingData data(counting_tokens(5'000), kSpecial, options_of(64, 8, 11));
  std::vector<Batch> in_order;
  for (int64_t step = 0; step < 40; ++step) in_order.push_back(data.batch(step));
  const PretrainingData again(counting_tokens(5'000), kSpecial, options_of(64, 8, 11));
  for (int64_t step = 39; step >= 0; --step) expect_equal(again.batch(step), in_order[static_cast<size_t>(step)]);
  std::vector<std::thread> threads;
  std::vector<Batch> from_threads(40);
  for (int64_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int64_t step = thread; step < 40; step += 4) from_threads[static_cast<size_t>(step)] = data.batch(step);
    });
  }
  for (auto& thread : threads) thread.join();
  for (size_t step = 0; step < 40; ++step) expect_equal(from_threads[step], in_order[step]);
  const PretrainingData other(counting_tokens(5'000), kSpecial, options_of(64, 8, 12));
  EXPECT_NE(other.batch(0).encoder_input_tokens, in_order[0].encoder_input_tokens);
}

// A run that is resumed by a later version must see the same examples: these values may never change.
TEST(PretrainingData, DrawsTheSameExamplesForever) {
  const PretrainingData data(counting_tokens(1'000), kSpecial, options_of(16, 2, 42));
  const Batch batch = data.batch(1'000'000);
  EXPECT_THAT(batch.encoder_input_tokens,
              testing::ElementsAre(195, 196, 197, 198, 199, 200, 201, 202, 203, 204, 205, 206, 207, 208, 1000099, 1,  //
                                   348, 349, 350, 351, 352, 353, 354, 355, 356, 357, 358, 359, 360, 361, 1000099, 1));
  EXPECT_THAT(batch.decoder_target_tokens, testing::ElementsAre(1000099, 209, 210, 211, 1, 1000099, 362, 363, 364, 1));
}

TEST(PretrainingData, EveryEpochVisitsEverySegmentOnce) {
  for (const int64_t size : {568, 1'000, 5'680, 20'001}) {
    const PretrainingData data(counting_tokens(size), kSpecial, options_of(512, 2, 5));
    const int64_t num_segments = size / 568;
    ASSERT_EQ(data.segments_per_epoch(), num_segments);
    std::set<int32_t> starts;
    std::vector<std::vector<int32_t>> orders;
    for (int64_t epoch = 0; epoch < 4; ++epoch) {
      std::multiset<int32_t> seen;
      std::vector<int32_t> order;
      for (int64_t place = 0; place < num_segments; ++place) {
        const auto segment = data.segment(epoch * num_segments + place);
        ASSERT_EQ(segment.size(), 568u);
        for (size_t token = 1; token < segment.size(); ++token) {  // consecutive on the ring
          ASSERT_EQ((segment[token] - 10) % size, (segment[token - 1] - 10 + 1) % size);
        }
        seen.insert(segment.begin(), segment.end());
        order.push_back(segment.front());
      }
      EXPECT_EQ(seen.size(), static_cast<size_t>(num_segments * 568));
      EXPECT_EQ(std::set<int32_t>(seen.begin(), seen.end()).size(), seen.size()) << "a token came twice in an epoch";
      starts.insert(*std::min_element(order.begin(), order.end()) % 568);
      orders.push_back(order);
      if (num_segments > 5) {
        EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
      }
    }
    if (size > 568) {
      EXPECT_GT(starts.size(), 1u) << "cuts should differ from epoch to epoch";
    }
  }
}

TEST(PretrainingData, NoiseDiffersFromEpochToEpoch) {
  const PretrainingData data(counting_tokens(568), kSpecial, options_of(512, 1, 5));
  // One segment: the positions of the sentinels are all that the noise decides.
  const auto sentinel_places = [&](int64_t step) {
    std::vector<size_t> places;
    const auto batch = data.batch(step);
    for (size_t at = 0; at < 512; ++at) {
      if (batch.encoder_input_tokens[at] >= 1'000'000) places.push_back(at);
    }
    return places;
  };
  EXPECT_NE(sentinel_places(0), sentinel_places(1));
  EXPECT_EQ(sentinel_places(0).size(), 28u);
}

TEST(PretrainingData, PartsTogetherAreTheWholeBatch) {
  const auto tokens = counting_tokens(3'000);
  const PretrainingData whole(tokens, kSpecial, options_of(64, 8));
  for (const int64_t num_parts : {2, 4, 8}) {
    for (const int64_t step : {0, 1, 17}) {  // 42 segments: step 17 lies in another epoch
      Batch joined;
      for (int64_t number = 0; number < num_parts; ++number) {
        const Batch part = whole.rows(step, number * 8 / num_parts, 8 / num_parts);
        EXPECT_EQ(part.batch_size, 8 / num_parts);
        EXPECT_EQ(part.first_example, number * 8 / num_parts);
        joined.encoder_input_tokens.insert(joined.encoder_input_tokens.end(), part.encoder_input_tokens.begin(),
                                           part.encoder_input_tokens.end());
        joined.decoder_target_tokens.insert(joined.decoder_target_tokens.end(), part.decoder_target_tokens.begin(),
                                            part.decoder_target_tokens.end());
      }
      EXPECT_EQ(joined.encoder_input_tokens, whole.batch(step).encoder_input_tokens);
      EXPECT_EQ(joined.decoder_target_tokens, whole.batch(step).decoder_target_tokens);
    }
  }
  EXPECT_THAT(error_of([&] { whole.rows(0, 6, 3); }), HasSubstr("rows 6 to 8 of a batch of 8"));
}

TEST(PretrainingData, PadsALongerDecoderAndRefusesAShorterOne) {
  auto options = options_of(512, 1);
  options.shape.decoder_length = 128;
  const Batch batch = PretrainingData(counting_tokens(600), kSpecial, options).batch(0);
  EXPECT_EQ(batch.decoder_length, 128);
  EXPECT_EQ(batch.decoder_target_tokens[113], 1);
  for (size_t at = 114; at < 128; ++at) EXPECT_EQ(batch.decoder_target_tokens[at], 0);
  options.shape.decoder_length = 100;
  EXPECT_THAT(error_of([&] { PretrainingData(counting_tokens(600), kSpecial, options); }),
              AllOf(HasSubstr("decoder_length 100 is too short"), HasSubstr("data.decoder_length = 114")));
}

TEST(PretrainingData, SaysWhatDoesNotFit) {
  const auto message = [](int64_t size, const PretrainingOptions& options, const SpecialTokens& special = kSpecial) {
    return error_of([&] { PretrainingData(counting_tokens(size), special, options); });
  };
  EXPECT_THAT(message(567, options_of(512, 1)),
              AllOf(HasSubstr("has 567 tokens, one example takes 568"), HasSubstr("more text")));
  EXPECT_THAT(message(9'000, options_of(2048, 1)), HasSubstr("needs 114 sentinels, the vocabulary has 100"));
  EXPECT_THAT(message(9'000, options_of(3, 1)), HasSubstr("encoder_length 3"));
  EXPECT_THAT(message(9'000, options_of(64, 0)), HasSubstr("batch_size 0"));
  auto options = options_of(64, 8);
  options.shape.corruption.noise_density = 0;
  EXPECT_THAT(message(9'000, options), HasSubstr("noise_density 0"));
}

// T5's length and mask functions round differently; no combination may lose its EOS.
TEST(PretrainingData, EveryShapeFits) {
  const SpecialTokens special{.eos_id = 1, .first_sentinel_id = 1'999'999, .num_sentinels = 900'000};
  for (const double density : {0.1, 0.15, 0.25, 0.3, 0.5}) {
    for (const double mean : {1.0, 1.5, 2.0, 3.0, 10.0}) {
      for (int64_t encoder_length = 4; encoder_length < 600; encoder_length += 1 + encoder_length / 9) {
        const SegmentShape shape{.encoder_length = encoder_length, .corruption = {density, mean}};
        const PretrainingData data(counting_tokens(2'000), special, {.shape = shape, .batch_size = 1});
        const Batch batch = data.batch(0);
        const auto& inputs = batch.encoder_input_tokens;
        EXPECT_EQ(std::count(inputs.begin(), inputs.end(), 1), 1) << density << " " << mean << " " << encoder_length;
        EXPECT_EQ(batch.decoder_target_tokens.back(), 1);
        EXPECT_LE(std::count(inputs.begin(), inputs.end(), 0), 2) << "rows should be full";
      }
    }
  }
}

TEST(EvaluationData, CutsTheTextInOrderLikeT5) {
  // 100 tokens into pieces of at most 25, 30, 100 and 1000; the last one shorter.
  const std::pair<int64_t, int64_t> lengths[] = {{25, 4}, {30, 4}, {100, 1}, {1000, 1}};
  for (const auto& [segment_length, num_pieces] : lengths) {
    int64_t encoder_length = 4;
    const auto length_for = [](int64_t length) {
      return resolve_shape({.encoder_length = length, .corruption = {}}, kSpecial).segment_length;
    };
    while (length_for(encoder_length) < segment_length) ++encoder_length;
    ASSERT_EQ(length_for(encoder_length), segment_length);
    const EvaluationData data(counting_tokens(100), kSpecial,
                              {.shape = {.encoder_length = encoder_length}, .batch_size = 1});
    EXPECT_EQ(data.num_examples(), num_pieces);
    int32_t next = 10;
    for (int64_t piece = 0; piece < num_pieces; ++piece) {
      const Batch batch = data.batch(piece);
      std::set<int32_t> seen;
      for (const auto* side : {&batch.encoder_input_tokens, &batch.decoder_target_tokens}) {
        for (const int32_t id : *side) {
          if (id >= 10 && id < 1'000'000) seen.insert(id);
        }
      }
      for (const int32_t id : seen) EXPECT_EQ(id, next++);
    }
    EXPECT_EQ(next, 110) << "every token is scored once";
  }
}

TEST(EvaluationData, IsFixed) {
  const auto tokens = counting_tokens(70 * 20);
  EvaluationOptions options{.shape = {.encoder_length = 64}, .batch_size = 4};
  ASSERT_EQ(resolve_shape(options.shape, kSpecial).segment_length, 70);
  const EvaluationData whole(tokens, kSpecial, options);
  EXPECT_EQ(whole.num_examples(), 20);
  EXPECT_EQ(whole.num_batches(), 5);
  for (int64_t index = 0; index < 5; ++index) {
    expect_equal(whole.batch(index), EvaluationData(tokens, kSpecial, options).batch(index));
  }
  EXPECT_THROW(whole.batch(5), Error);
  const EvaluationData everything(counting_tokens(70 * 20 + 30), kSpecial, options);
  EXPECT_EQ(everything.num_examples(), 21);
  EXPECT_EQ(everything.num_batches(), 6);
  EXPECT_EQ(everything.batch(5).batch_size, 1);
  expect_equal(everything.batch(2), whole.batch(2));
  // The examples do not depend on the size of the batch.
  options.batch_size = 8;
  const Batch wider = EvaluationData(tokens, kSpecial, options).batch(0);
  const Batch narrow = everything.batch(0);
  EXPECT_TRUE(std::equal(narrow.encoder_input_tokens.begin(), narrow.encoder_input_tokens.end(),
                         wider.encoder_input_tokens.begin()));
}

TEST(EvaluationData, BoundsTheNumberOfExamples) {
  const auto tokens = counting_tokens(70 * 20);
  EvaluationOptions options{.shape = {.encoder_length = 64}, .batch_size = 4, .max_examples = 10};
  EXPECT_EQ(EvaluationData(tokens, kSpecial, options).num_examples(), 10);
  options.max_examples = 3;
  const EvaluationData few(tokens, kSpecial, options);
  EXPECT_EQ(few.num_batches(), 1);
  EXPECT_EQ(few.batch(0).batch_size, 3);
  EXPECT_THAT(error_of([&] { EvaluationData(counting_tokens(1), kSpecial, {}); }), HasSubstr("expected at least 2"));
}

TEST(EvaluationData, KeepsSeveralTextsApart) {
  const EvaluationOptions options{.shape = {.encoder_length = 64}, .batch_size = 4, .max_examples = 3};
  const EvaluationData both({counting_tokens(70 * 2 + 20), counting_tokens(70 * 9)}, kSpecial, options);
  const EvaluationData second(counting_tokens(70 * 9), kSpecial, options);
  EXPECT_EQ(both.num_examples(), 6);
  const Batch first_batch = both.batch(0), last_batch = both.batch(1), alone = second.batch(0);
  EXPECT_EQ(first_batch.part, (std::vector<int32_t>{0, 0, 0, 1}));
  EXPECT_EQ(last_batch.part, (std::vector<int32_t>{1, 1}));
  EXPECT_TRUE(alone.part.empty());
  EXPECT_TRUE(std::equal(last_batch.encoder_input_tokens.begin(), last_batch.encoder_input_tokens.end(),
                         alone.encoder_input_tokens.begin() + 64))
      << "an example is the same whatever stands before its text";
  EXPECT_THAT(error_of([&] {
                EvaluationData({counting_tokens(70), counting_tokens(1)}, kSpecial, options);
              }),
              HasSubstr("text number 2 has 1 tokens"));
}

}  // namespace
}  // namespace switchyard
