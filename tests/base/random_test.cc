#include "base/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/error.h"

namespace switchyard {
namespace {

// Known answers of the Random123 distribution (kat_vectors, philox 4x32 with 10 rounds).
TEST(Philox, MatchesPublishedKnownAnswers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox({ones, ones, ones, ones}, {ones, ones}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(NoiseKey, EveryFieldNamesAnotherStream) {
  const NoiseKey base{.seed = 1, .purpose = NoisePurpose::kDropout, .step = 2, .layer = 3};
  std::set<std::array<uint32_t, 2>> keys{stream_key(base)};
  auto other = base;
  other.seed = 9;
  keys.insert(stream_key(other));
  other = base;
  other.purpose = NoisePurpose::kRouterJitter;
  keys.insert(stream_key(other));
  other = base;
  other.step = uint64_t{2} << 32;
  keys.insert(stream_key(other));
  other = base;
  other.layer = 4;
  keys.insert(stream_key(other));
  EXPECT_EQ(keys.size(), 5u);
}

TEST(NoiseStream, BoundedDrawsAreUniform) {
  NoiseStream stream({.seed = 5});
  std::array<int, 7> counts{};
  const int draws = 70000;
  for (int n = 0; n < draws; ++n) ++counts[stream.below(7)];
  double chi_square = 0.0;
  for (const int count : counts) chi_square += std::pow(count - draws / 7.0, 2) / (draws / 7.0);
  EXPECT_LT(chi_square, 27.9);  // 6 degrees of freedom, p = 1e-4
}

TEST(Permute, VisitsEveryIndexOnceAtAwkwardSizes) {
  for (const uint64_t size : {1u, 2u, 3u, 5u, 64u, 65u, 1000u, 4097u}) {
    std::set<uint64_t> seen;
    for (uint64_t index = 0; index < size; ++index) {
      const uint64_t image = permute(index, size, {.seed = 3, .purpose = NoisePurpose::kShuffle});
      EXPECT_LT(image, size);
      seen.insert(image);
    }
    EXPECT_EQ(seen.size(), size);
  }
  EXPECT_THROW(permute(4, 4, {}), Error);
}

TEST(Permute, AnotherKeyGivesAnotherOrder) {
  int same = 0;
  for (uint64_t index = 0; index < 1000; ++index)
    same += permute(index, 1000, {.seed = 1, .step = 0}) == permute(index, 1000, {.seed = 1, .step = 1});
  EXPECT_LT(same, 15);  // one in a thousand by chance
}

}  // namespace
}  // namespace switchyard
