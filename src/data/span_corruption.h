// T5's span corruption: runs of tokens are replaced by sentinels in the inputs, and the targets are the runs, each
// behind its sentinel (T5 data/preprocessors.py; Switch Transformers 2.3). Counts, rounding and shape of the mask are
// T5's exactly; the random numbers are ours.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/random.h"

namespace switchyard {

class Vocabulary;

struct SpanCorruption {
  double noise_density = 0.15;          // share of tokens that are noise
  double mean_noise_span_length = 3.0;  // tokens a noise span
};

struct SpanCorruptionLengths {
  int64_t tokens_length = 0;   // raw tokens whose inputs fill inputs_length
  int64_t targets_length = 0;  // their targets, sentinels and EOS included
};

// T5's random_spans_helper: (512, 0.15, 3) -> (568, 114). In double, as there. Throws Error on values out of range.
SpanCorruptionLengths span_corruption_lengths(int64_t inputs_length, const SpanCorruption& corruption);

struct NoiseCounts {
  int64_t num_noise_tokens = 0;
  int64_t num_noise_spans = 0;
  int64_t inputs_length(int64_t length) const { return length - num_noise_tokens + num_noise_spans + 1; }  // with EOS
  int64_t targets_length() const { return num_noise_tokens + num_noise_spans + 1; }                        // with EOS
};

// What a mask of `length` tokens holds; in f32 and half to even, as T5's mask function (which so can differ from the
// lengths above where a product falls on a half). length >= 2. Density 0 gives no noise.
NoiseCounts noise_counts(int64_t length, const SpanCorruption& corruption);

// `num_items` cut into `num_parts` non-empty parts, every way equally likely. Throws Error unless 1 <= parts <= items.
std::vector<int64_t> random_partition(int64_t num_items, int64_t num_parts, NoiseStream& noise);

// True where a token is noise: spans of non-noise and noise in turns, starting with non-noise and ending with noise.
std::vector<bool> random_spans_noise_mask(int64_t length, const SpanCorruption& corruption, NoiseStream& noise);

// Every run of tokens with mask == `value` becomes one sentinel: first_sentinel_id, first_sentinel_id - 1, ...
std::vector<int32_t> replace_spans(std::span<const int32_t> tokens, const std::vector<bool>& mask, bool value,
                                   int32_t first_sentinel_id);

// The ids that corruption puts in.
struct SpecialTokens {
  int32_t eos_id = 1;
  int32_t first_sentinel_id = 0;  // <extra_id_0>; the others count downwards
  int32_t num_sentinels = 0;
};

// Throws Error if the vocabulary does not have T5's pad 0, an EOS and sentinels.
SpecialTokens special_tokens(const Vocabulary& vocabulary);

struct CorruptedExample {
  std::vector<int32_t> inputs;   // noise_counts(...).inputs_length() ids, EOS last
  std::vector<int32_t> targets;  // noise_counts(...).targets_length() ids: s0 span0 s1 span1 ... EOS
};

CorruptedExample corrupt_spans(std::span<const int32_t> tokens, const SpanCorruption& corruption,
                               const SpecialTokens& special, NoiseStream& noise);

}  // namespace switchyard
