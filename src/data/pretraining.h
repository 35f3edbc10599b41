// Batches of corrupted segments for pre-training and its evaluation. A batch is a pure function of (tokens, options,
// step): there is no position to save, and every layout of ranks draws the same examples.
#pragma once

#include <cstdint>
#include <span>

#include "data/example_source.h"
#include "data/span_corruption.h"
#include "data/token_store.h"

namespace switchyard {

// How a segment of raw tokens fills a batch's rows.
struct SegmentShape {
  int64_t encoder_length = 512;
  int64_t decoder_length = 0;  // 0: as long as the targets need (114 for 512); longer: padded
  SpanCorruption corruption = {};
};

struct PretrainingOptions {
  SegmentShape shape = {};
  uint64_t seed = 0;
  int64_t batch_size = 8;  // sequences a step
};

// A shape with all lengths worked out: raw tokens of a segment, encoder length and decoder length.
struct ResolvedShape {
  int64_t segment_length = 0;  // raw tokens: 568 for 512
  int64_t encoder_length = 0;
  int64_t decoder_length = 0;
  SpanCorruption corruption = {};
  SpecialTokens special;
};

// Throws Error, telling the right value, for a decoder_length that is too short for the encoder_length, for more noise
// spans than sentinels, and for values out of range.
ResolvedShape resolve_shape(const SegmentShape& shape, const SpecialTokens& special);

// Training examples. The sequence of tokens, its end joined to its beginning, is cut into segments; every epoch starts
// the cuts at another token and takes the segments in another order, each once. Example number n = step * batch_size +
// row belongs to epoch n / segments_per_epoch and has its own noise.
class PretrainingData : public ExampleSource {
 public:
  // Throws Error as resolve_shape does, and if the text is shorter than one segment.
  PretrainingData(TokenStore tokens, const SpecialTokens& special, const PretrainingOptions& options);

  Batch rows(int64_t step, int64_t first, int64_t count) const override;
  SourceShape shape() const override {
    return {options_.batch_size, segment_shape_.encoder_length, segment_shape_.decoder_length};
  }
  int64_t examples_per_epoch() const override { return segments_per_epoch_; }

  // Raw tokens [segment_length] of an example, before corruption.
  std::vector<int32_t> segment(int64_t example) const;

  const ResolvedShape& segment_shape() const { return segment_shape_; }
  int64_t segments_per_epoch() const { return segments_per_epoch_; }
  int64_t steps_per_epoch() const {
    return (segments_per_epoch_ + options_.batch_size - 1) / options_.batch_size;
  }  // rounded up

 private:
  TokenStore tokens_;
  ResolvedShape segment_shape_;
  PretrainingOptions options_;
  int64_t segments_per_epoch_ = 0;
};

struct EvaluationOptions {
  SegmentShape shape = {};
  uint64_t seed = 0;
  int64_t batch_size = 8;
  int64_t max_examples = 0;  // of each text; 0: all
};

// A fixed set: each text from its beginning in consecutive segments, the last one shorter, with noise from a fixed
// seed; one text after the other. An example is the same whatever texts stand beside its own.
class EvaluationData {
 public:
  // Throws Error as PretrainingData does; two tokens are text enough. Rows of several texts say which one they are of
  // in Batch::part.
  EvaluationData(std::vector<TokenStore> texts, const SpecialTokens& special, const EvaluationOptions& options);
  EvaluationData(TokenStore text, const SpecialTokens& special, const EvaluationOptions& options)
      : EvaluationData(std::vector<TokenStore>{std::move(text)}, special, options) {}

  int64_t num_examples() const { return ends_.back(); }
  int64_t num_batches() const { return (num_examples() + options_.batch_size - 1) / options_.batch_size; }
  Batch batch(int64_t index) const;  // index in [0, num_batches()), thread-safe

  const ResolvedShape& segment_shape() const { return segment_shape_; }

 private:
  std::vector<TokenStore> texts_;
  ResolvedShape segment_shape_;
  EvaluationOptions options_;
  std::vector<int64_t> ends_;  // of each text's examples, behind its last
};

}  // namespace switchyard
