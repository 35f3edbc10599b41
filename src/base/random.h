// Counter-based random numbers (Philox4x32-10; Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
// There is no generator state anywhere: a number is a pure function of a key and a counter, so a resumed run, another
// batch split or another rank layout draws the same noise.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace switchyard {

// What a stream of numbers is for. Values are part of the exact-resume contract: append, never renumber.
enum class NoisePurpose : uint32_t {
  kInitialization = 1,
  kShuffle = 2,
  kSpanCorruption = 3,
  kDropout = 4,
  kExpertDropout = 5,
  kRouterJitter = 6,
  kSampling = 7,
  kEvaluation = 8,
  kExploration = 9,
  kSecondExpert = 10,
  kRouterDropout = 11,
  kHashRouting = 12,
  kMixture = 13,
};

// Names one stream: (seed, purpose, step, layer). `layer` numbers the place within a step (a block, a parameter).
struct NoiseKey {
  uint64_t seed = 0;
  NoisePurpose purpose = NoisePurpose::kInitialization;
  uint64_t step = 0;
  uint32_t layer = 0;
};

// Philox4x32-10: four 32-bit words for (counter, key).
inline std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

// The two-word Philox key of a stream: the four fields of NoiseKey mixed by Philox itself.
inline std::array<uint32_t, 2> stream_key(const NoiseKey& key) {
  const auto mixed = philox({static_cast<uint32_t>(key.step), static_cast<uint32_t>(key.step >> 32),
                             static_cast<uint32_t>(key.purpose), key.layer},
                            {static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)});
  return {mixed[0], mixed[1]};
}

// A word to a float in [0, 1) with 24 bits, so that 1 is never reached.
inline float to_uniform(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

// Numbers of one stream in order, for scalar code: position n is always the same number.
class NoiseStream {
 public:
  // `example` and `position` choose an independent subsequence of 2^34 numbers.
  explicit NoiseStream(const NoiseKey& key, uint64_t example = 0) : key_(stream_key(key)), example_(example) {}

  uint32_t next() {
    if (used_ == 4) {
      words_ = philox({static_cast<uint32_t>(block_), static_cast<uint32_t>(block_ >> 32),
                       static_cast<uint32_t>(example_), static_cast<uint32_t>(example_ >> 32)},
                      key_);
      ++block_;
      used_ = 0;
    }
    return words_[used_++];
  }
  uint64_t next64() {
    const uint64_t high = next();
    return (high << 32) | next();
  }
  float uniform() { return to_uniform(next()); }  // [0, 1)
  // Uniform integer in [0, bound), without bias (Lemire's multiplication with rejection). bound > 0.
  uint64_t below(uint64_t bound) {
    while (true) {
      const unsigned __int128 product = static_cast<unsigned __int128>(next64()) * bound;
      if (static_cast<uint64_t>(product) >= (-bound) % bound) return static_cast<uint64_t>(product >> 64);
    }
  }

 private:
  std::array<uint32_t, 2> key_;
  uint64_t example_;
  uint64_t block_ = 0;
  std::array<uint32_t, 4> words_{};
  size_t used_ = 4;
};

// A pseudo-random bijection of [0, size), evaluated at one index in O(1): a shuffle without a list. Four-round Feistel
// network over the next even power of two with cycle walking; `key` as NoiseKey.
uint64_t permute(uint64_t index, uint64_t size, const NoiseKey& key);

}  // namespace switchyard
