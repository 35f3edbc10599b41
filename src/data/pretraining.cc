#include "data/pretraining.h"

#include <algorithm>

#include "base/error.h"
#include "base/random.h"

namespace switchyard {
namespace {

void check_batch_size(int64_t batch_size) {
  SY_CHECK(batch_size >= 1, "batch_size ", batch_size, ": expected at least 1");
}

Batch empty_batch(const ResolvedShape& shape, int64_t first_example, int64_t num_rows) {
  Batch batch;
  batch.batch_size = num_rows;
  batch.encoder_length = shape.encoder_length;
  batch.decoder_length = shape.decoder_length;
  batch.first_example = first_example;
  batch.encoder_input_tokens.assign(static_cast<size_t>(num_rows * shape.encoder_length), 0);
  batch.decoder_target_tokens.assign(static_cast<size_t>(num_rows * shape.decoder_length), 0);
  return batch;
}

void fill_row(Batch& batch, int64_t row, std::span<const int32_t> segment, const ResolvedShape& shape,
              NoiseStream& noise) {
  const auto example = corrupt_spans(segment, shape.corruption, shape.special, noise);
  SY_CHECK(static_cast<int64_t>(example.inputs.size()) <= shape.encoder_length &&
               static_cast<int64_t>(example.targets.size()) <= shape.decoder_length,
           segment.size(), " tokens gave ", example.inputs.size(), " inputs and ", example.targets.size(), " targets");
  std::copy(example.inputs.begin(), example.inputs.end(),
            batch.encoder_input_tokens.begin() + row * shape.encoder_length);
  std::copy(example.targets.begin(), example.targets.end(),
            batch.decoder_target_tokens.begin() + row * shape.decoder_length);
}

}  // namespace

ResolvedShape resolve_shape(const SegmentShape& shape, const SpecialTokens& special) {
  SY_CHECK(shape.corruption.noise_density > 0, "noise_density ", shape.corruption.noise_density,
           ": expected more than 0 (T5: 0.15); without noise there is nothing to predict");
  SY_CHECK(shape.encoder_length >= 4, "encoder_length ", shape.encoder_length, ": expected at least 4");
  ResolvedShape resolved{
      .segment_length = span_corruption_lengths(shape.encoder_length, shape.corruption).tokens_length,
      .encoder_length = shape.encoder_length,
      .decoder_length = shape.decoder_length,
      .corruption = shape.corruption,
      .special = special};
  // T5's lengths and its masks round differently at halves, and a mask has at least one span: where that makes the
  // inputs too long, T5 would cut EOS off; a segment shorter by a token or two keeps it.
  while (resolved.segment_length > 2 &&
         noise_counts(resolved.segment_length, shape.corruption).inputs_length(resolved.segment_length) >
             shape.encoder_length) {
    --resolved.segment_length;
  }
  const NoiseCounts counts = noise_counts(resolved.segment_length, shape.corruption);
  SY_CHECK(counts.num_noise_spans <= special.num_sentinels, "encoder_length ", shape.encoder_length,
           " with noise_density ", shape.corruption.noise_density, " and mean_noise_span_length ",
           shape.corruption.mean_noise_span_length, " needs ", counts.num_noise_spans,
           " sentinels, the vocabulary has ", special.num_sentinels,
           "; raise mean_noise_span_length or shorten encoder_length");
  const int64_t needed = counts.targets_length();
  if (resolved.decoder_length == 0) resolved.decoder_length = needed;
  SY_CHECK(resolved.decoder_length >= needed, "decoder_length ", resolved.decoder_length,
           " is too short: with encoder_length ", shape.encoder_length, " the targets have ", needed,
           " tokens; set data.decoder_length = ", needed, ", or leave it out");
  return resolved;
}

PretrainingData::PretrainingData(TokenStore tokens, const SpecialTokens& special, const PretrainingOptions& options)
    : tokens_(std::move(tokens)), segment_shape_(resolve_shape(options.shape, special)), options_(options) {
  check_batch_size(options_.batch_size);
  SY_CHECK(tokens_.size() >= segment_shape_.segment_length, "the training text has ", tokens_.size(),
           " tokens, one example takes ", segment_shape_.segment_length,
           "; give more text, or a shorter encoder_length than ", segment_shape_.encoder_length);
  segments_per_epoch_ = tokens_.size() / segment_shape_.segment_length;
}

std::vector<int32_t> PretrainingData::segment(int64_t example) const {
  const auto epoch = static_cast<uint64_t>(example / segments_per_epoch_);
  const auto place = static_cast<uint64_t>(example % segments_per_epoch_);
  constexpr uint32_t kOrder = 0, kOffset = 1;
  const auto index = static_cast<int64_t>(permute(place, static_cast<uint64_t>(segments_per_epoch_),
                                                  {options_.seed, NoisePurpose::kShuffle, epoch, kOrder}));
  NoiseStream offset_noise({options_.seed, NoisePurpose::kShuffle, epoch, kOffset});
  const auto offset = static_cast<int64_t>(offset_noise.below(static_cast<uint64_t>(tokens_.size())));

  std::vector<int32_t> segment(static_cast<size_t>(segment_shape_.segment_length));
  const int64_t begin = (offset + index * segment_shape_.segment_length) % tokens_.size();
  const int64_t before_end = std::min(segment_shape_.segment_length, tokens_.size() - begin);
  const std::span<int32_t> out(segment);
  tokens_.read(begin, out.first(static_cast<size_t>(before_end)));
  tokens_.read(0, out.subspan(static_cast<size_t>(before_end)));
  return segment;
}

Batch PretrainingData::rows(int64_t step, int64_t first, int64_t count) const {
  check_rows(shape(), first, count);
  Batch batch = empty_batch(segment_shape_, first, count);
  for (int64_t row = 0; row < count; ++row) {
    const int64_t example = step * options_.batch_size + first + row;
    NoiseStream noise({options_.seed, NoisePurpose::kSpanCorruption}, static_cast<uint64_t>(example));
    fill_row(batch, row, segment(example), segment_shape_, noise);
  }
  return batch;
}

EvaluationData::EvaluationData(std::vector<TokenStore> texts, const SpecialTokens& special,
                               const EvaluationOptions& options)
    : texts_(std::move(texts)), segment_shape_(resolve_shape(options.shape, special)), options_(options) {
  check_batch_size(options_.batch_size);
  SY_CHECK(options_.max_examples >= 0, "max_examples ", options_.max_examples, ": expected 0 (all) or more");
  SY_CHECK(!texts_.empty(), "no evaluation text");
  for (const auto& tokens : texts_) {
    const int64_t whole = tokens.size() / segment_shape_.segment_length;
    int64_t examples =
        whole + (tokens.size() % segment_shape_.segment_length >= 2 ? 1 : 0);  // one token cannot be corrupted
    SY_CHECK(examples > 0, "the evaluation text", texts_.size() > 1 ? join(" number ", ends_.size() + 1) : "", " has ",
             tokens.size(), " tokens, expected at least 2; give more text");
    if (options_.max_examples > 0) examples = std::min(examples, options_.max_examples);
    ends_.push_back((ends_.empty() ? 0 : ends_.back()) + examples);
  }
}

Batch EvaluationData::batch(int64_t index) const {
  SY_CHECK(index >= 0 && index < num_batches(), "evaluation batch ", index, " of ", num_batches());
  const int64_t begin = index * options_.batch_size;
  const int64_t num_rows = std::min(options_.batch_size, num_examples() - begin);
  Batch batch = empty_batch(segment_shape_, 0, num_rows);
  std::vector<int32_t> segment;
  for (int64_t row = 0; row < num_rows; ++row) {
    const auto text = static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), begin + row) - ends_.begin());
    const int64_t example = begin + row - (text > 0 ? ends_[text - 1] : 0);
    const auto& tokens = texts_[text];
    const int64_t first_token = example * segment_shape_.segment_length;
    segment.resize(static_cast<size_t>(std::min(segment_shape_.segment_length, tokens.size() - first_token)));
    tokens.read(first_token, segment);
    NoiseStream noise({options_.seed, NoisePurpose::kEvaluation}, static_cast<uint64_t>(example));
    fill_row(batch, row, segment, segment_shape_, noise);
    if (texts_.size() > 1) batch.part.push_back(static_cast<int32_t>(text));
  }
  return batch;
}

}  // namespace switchyard
