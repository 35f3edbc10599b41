#include "data/mixture.h"

#include <gmock/gmock.h>

#include <cmath>
#include <numeric>

#include "text/scratch.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Example n of part p is inputs {100 p + 1, n + 1} and one target.
class Numbered : public ExampleSource {
 public:
  Numbered(int32_t part, int64_t encoder_length) : part_(part), shape_{1, encoder_length, 1} {}
  Batch rows(int64_t step, int64_t first, int64_t count) const override {
    check_rows(shape_, first, count);
    Batch batch{.batch_size = count, .encoder_length = shape_.encoder_length, .decoder_length = 1};
    batch.encoder_input_tokens.assign(static_cast<size_t>(shape_.encoder_length), 0);
    batch.encoder_input_tokens[0] = 100 * part_ + 1;
    batch.encoder_input_tokens[1] = static_cast<int32_t>(step) + 1;
    batch.decoder_target_tokens = {7};
    return batch;
  }
  SourceShape shape() const override { return shape_; }
  int64_t examples_per_epoch() const override { return 10; }

 private:
  int32_t part_;
  SourceShape shape_;
};

MixtureSource mixture_of(const std::vector<double>& rates, uint64_t seed = 3, int64_t batch_size = 8) {
  std::vector<MixturePart> parts;
  for (size_t n = 0; n < rates.size(); ++n)
    parts.push_back({.name = "part" + std::to_string(n),
                     .rate = rates[n],
                     .source = std::make_unique<Numbered>(static_cast<int32_t>(n), 2 + static_cast<int64_t>(n))});
  return MixtureSource(std::move(parts), seed, batch_size);
}

// Over several blocks every part gives its examples in order, none twice, none left out.
TEST(Mixture, EveryPartIsReadInItsOwnOrder) {
  const auto mixture = mixture_of({1.0, 0.25, 3e-5});
  std::vector<int64_t> next(3, 0);
  for (int64_t number = 0; number < 200'000; ++number) {
    const auto [part, example] = mixture.place_of(number);
    ASSERT_EQ(example, next[static_cast<size_t>(part)]++) << "example " << number << " of part " << part;
  }
  EXPECT_EQ(std::accumulate(next.begin(), next.end(), int64_t{0}), 200'000);
  EXPECT_GE(next[2], 3) << "a part of a small rate has a place in every block";
}

// Exact over a block; over a part of one, within five standard deviations of independent draws.
TEST(Mixture, FrequenciesAreTheRates) {
  const std::vector<double> rates = {5.0, 3.0, 1.5, 0.5};
  const auto mixture = mixture_of(rates);
  std::vector<int64_t> counts(4, 0);
  for (int64_t number = 0; number < 65'536; ++number) {
    ++counts[static_cast<size_t>(mixture.place_of(number).part)];
    for (size_t part = 0; number == 4'000 && part < 4; ++part) {
      const double share = rates[part] / 10.0, deviation = std::sqrt(4'001 * share * (1 - share));
      EXPECT_NEAR(static_cast<double>(counts[part]), 4'001 * share, 5 * deviation) << part;
    }
  }
  for (size_t part = 0; part < 4; ++part)
    EXPECT_NEAR(static_cast<double>(counts[part]), rates[part] / 10.0 * 65'536, 1.0) << part;
}

TEST(Mixture, EveryCutOfABatchHasTheSameRows) {
  const auto mixture = mixture_of({1.0, 2.0}), again = mixture_of({1.0, 2.0});
  std::vector<Batch> batches;
  for (int64_t step = 0; step < 30; ++step) batches.push_back(mixture.batch(step));
  for (int64_t step = 29; step >= 0; --step)
    for (int64_t row = 7; row >= 0; --row) {
      const Batch one = again.rows(step, row, 1);
      const auto& whole = batches[static_cast<size_t>(step)];
      const auto begin = whole.encoder_input_tokens.begin() + row * 3;
      EXPECT_EQ(one.encoder_input_tokens, std::vector<int32_t>(begin, begin + 3));
      EXPECT_THAT(one.part, ElementsAre(whole.part[static_cast<size_t>(row)]));
      EXPECT_EQ(one.first_example, row);
    }
  EXPECT_NE(mixture_of({1.0, 2.0}, 4).batch(0).part, batches[0].part);
}

TEST(Mixture, RowsAreThePartsExamplesPaddedToTheLongest) {
  const auto mixture = mixture_of({1.0, 1.0});
  EXPECT_EQ(mixture.shape().encoder_length, 3);
  const Batch batch = mixture.batch(2);
  ASSERT_EQ(batch.encoder_input_tokens.size(), 24U);
  for (size_t row = 0; row < 8; ++row) {
    const auto place = mixture.place_of(2 * 8 + static_cast<int64_t>(row));
    EXPECT_EQ(batch.part[row], place.part);
    EXPECT_EQ(batch.encoder_input_tokens[row * 3], 100 * place.part + 1);
    EXPECT_EQ(batch.encoder_input_tokens[row * 3 + 1], place.example + 1);
    EXPECT_EQ(batch.encoder_input_tokens[row * 3 + 2], 0);
  }
  EXPECT_THAT(mixture.part_names(), ElementsAre("part0", "part1"));
}

// T5's rate_num_examples: GLUE's CoLA and MNLI with a limit of 2^16, and mT5's exponent.
TEST(Mixture, ProportionalRatesAreT5s) {
  EXPECT_THAT(proportional_rates({8551, 392702}, 65536, 1.0), ElementsAre(8551.0, 65536.0));
  EXPECT_THAT(proportional_rates({8551, 392702}, 0, 1.0), ElementsAre(8551.0, 392702.0));
  const auto softened = proportional_rates({1000, 1000000}, 0, 1.0 / 0.3);
  EXPECT_NEAR(softened[1] / softened[0], std::pow(1000.0, 0.3), 1e-9);
}

TEST(Mixture, SaysWhatDoesNotFit) {
  EXPECT_THAT(error_of([] { mixture_of({}); }), HasSubstr("0 parts"));
  EXPECT_THAT(error_of([] { mixture_of({1.0, 0.0}); }), HasSubstr("part1: rate 0"));
  EXPECT_THAT(error_of([] { mixture_of({1.0, NAN}); }), HasSubstr("part1: rate nan"));
  EXPECT_THAT(error_of([] {
                std::vector<MixturePart> parts;
                for (int n = 0; n < 2; ++n)
                  parts.push_back({.name = "same", .rate = 1.0, .source = std::make_unique<Numbered>(0, 2)});
                MixtureSource(std::move(parts), 0, 4);
              }),
              HasSubstr("named same"));
}

}  // namespace
}  // namespace switchyard
