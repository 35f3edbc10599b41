#include "data/span_corruption.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "text/vocabulary.h"

namespace switchyard {
namespace {

void check_range(const SpanCorruption& corruption) {
  SY_CHECK(corruption.noise_density >= 0 && corruption.noise_density < 1, "noise_density ", corruption.noise_density,
           ": expected at least 0 and less than 1 (T5: 0.15)");
  SY_CHECK(corruption.mean_noise_span_length >= 1 && corruption.mean_noise_span_length < 1e6, "mean_noise_span_length ",
           corruption.mean_noise_span_length, ": expected at least 1 (T5: 3)");
}

}  // namespace

SpanCorruptionLengths span_corruption_lengths(int64_t inputs_length, const SpanCorruption& corruption) {
  check_range(corruption);
  SY_CHECK(inputs_length >= 2 && inputs_length <= 1 << 24, "inputs_length ", inputs_length, ": expected 2 to ",
           1 << 24);
  const auto lengths_of = [&](int64_t tokens_length) {
    // nearbyint rounds half to even, as Python's round does.
    const double noise = std::nearbyint(static_cast<double>(tokens_length) * corruption.noise_density);
    const double spans = std::nearbyint(noise / corruption.mean_noise_span_length);
    return NoiseCounts{static_cast<int64_t>(noise), static_cast<int64_t>(spans)};
  };
  int64_t tokens_length = inputs_length - 1;
  while (lengths_of(tokens_length + 1).inputs_length(tokens_length + 1) <= inputs_length) ++tokens_length;
  int64_t targets_length = lengths_of(tokens_length).targets_length();
  // T5 prefers targets as long as the inputs where half of the tokens are noise.
  if (corruption.noise_density == 0.5 && targets_length > inputs_length) {
    --tokens_length;
    --targets_length;
  }
  return {tokens_length, targets_length};
}

NoiseCounts noise_counts(int64_t length, const SpanCorruption& corruption) {
  check_range(corruption);
  SY_CHECK(length >= 2, "span corruption of ", length, " tokens: expected at least 2");
  if (corruption.noise_density == 0) return {};
  const auto density = static_cast<float>(corruption.noise_density);
  const auto mean_length = static_cast<float>(corruption.mean_noise_span_length);
  NoiseCounts counts;
  counts.num_noise_tokens = static_cast<int64_t>(std::nearbyint(static_cast<float>(length) * density));
  counts.num_noise_tokens = std::clamp<int64_t>(counts.num_noise_tokens, 1, length - 1);
  counts.num_noise_spans =
      static_cast<int64_t>(std::nearbyint(static_cast<float>(counts.num_noise_tokens) / mean_length));
  counts.num_noise_spans = std::max<int64_t>(counts.num_noise_spans, 1);
  SY_CHECK(counts.num_noise_spans <= length - counts.num_noise_tokens, "noise_density ", corruption.noise_density,
           " leaves too few tokens between ", counts.num_noise_spans,
           " noise spans; lower it or raise mean_noise_span_length");
  return counts;
}

std::vector<int64_t> random_partition(int64_t num_items, int64_t num_parts, NoiseStream& noise) {
  SY_CHECK(num_parts >= 1 && num_parts <= num_items, "cannot cut ", num_items, " items into ", num_parts, " parts");
  // A partition is a choice of num_parts - 1 of the num_items - 1 gaps; selection sampling takes each set equally
  // often.
  std::vector<int64_t> lengths;
  lengths.reserve(static_cast<size_t>(num_parts));
  int64_t wanted = num_parts - 1, length = 1;
  for (int64_t gaps_left = num_items - 1; gaps_left > 0; --gaps_left) {
    if (wanted > 0 && noise.below(static_cast<uint64_t>(gaps_left)) < static_cast<uint64_t>(wanted)) {
      lengths.push_back(length);
      length = 0;
      --wanted;
    }
    ++length;
  }
  lengths.push_back(length);
  return lengths;
}

std::vector<bool> random_spans_noise_mask(int64_t length, const SpanCorruption& corruption, NoiseStream& noise) {
  const NoiseCounts counts = noise_counts(length, corruption);
  std::vector<bool> mask;
  mask.reserve(static_cast<size_t>(length));
  if (counts.num_noise_spans > 0) {
    const auto noise_lengths = random_partition(counts.num_noise_tokens, counts.num_noise_spans, noise);
    const auto kept_lengths = random_partition(length - counts.num_noise_tokens, counts.num_noise_spans, noise);
    for (size_t span = 0; span < noise_lengths.size(); ++span) {
      mask.insert(mask.end(), static_cast<size_t>(kept_lengths[span]), false);
      mask.insert(mask.end(), static_cast<size_t>(noise_lengths[span]), true);
    }
  }
  mask.resize(static_cast<size_t>(length), false);
  return mask;
}

std::vector<int32_t> replace_spans(std::span<const int32_t> tokens, const std::vector<bool>& mask, bool value,
                                   int32_t first_sentinel_id) {
  SY_CHECK(mask.size() == tokens.size(), "a mask of ", mask.size(), " for ", tokens.size(), " tokens");
  std::vector<int32_t> out;
  out.reserve(tokens.size() + 1);
  int32_t sentinel_id = first_sentinel_id;
  for (size_t token = 0; token < tokens.size(); ++token) {
    if (mask[token] != value) {
      out.push_back(tokens[token]);
    } else if (token == 0 || mask[token - 1] != value) {
      out.push_back(sentinel_id--);
    }
  }
  return out;
}

SpecialTokens special_tokens(const Vocabulary& vocabulary) {
  SY_CHECK(vocabulary.pad_id() == 0, "the vocabulary's pad id is ", vocabulary.pad_id(),
           ", expected 0 as T5 has it; use a T5 vocabulary, or make one with `switchyard vocab train`");
  SY_CHECK(vocabulary.eos_id() > 0,
           "the vocabulary has no end-of-sequence piece </s>; use a T5 vocabulary, or make one with "
           "`switchyard vocab train`");
  SY_CHECK(vocabulary.num_sentinels() > 0, "the vocabulary has no sentinels <extra_id_N>");
  return {vocabulary.eos_id(), vocabulary.sentinel_id(0), vocabulary.num_sentinels()};
}

CorruptedExample corrupt_spans(std::span<const int32_t> tokens, const SpanCorruption& corruption,
                               const SpecialTokens& special, NoiseStream& noise) {
  const auto mask = random_spans_noise_mask(static_cast<int64_t>(tokens.size()), corruption, noise);
  CorruptedExample example{replace_spans(tokens, mask, true, special.first_sentinel_id),
                           replace_spans(tokens, mask, false, special.first_sentinel_id)};
  example.inputs.push_back(special.eos_id);
  example.targets.push_back(special.eos_id);
  return example;
}

}  // namespace switchyard
