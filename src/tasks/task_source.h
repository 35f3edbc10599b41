// A task's examples as training batches: one example a row, inputs and targets with EOS. A batch is a pure function of
// (examples, options, step), as of every source.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/enum_words.h"
#include "data/example_source.h"
#include "tasks/examples.h"
#include "text/vocabulary.h"

namespace switchyard {

// What happens to examples whose inputs, or targets, do not fit with their EOS. Targets are never cut.
enum class LongInputs { kCut, kSkip, kRefuse };
template <>
inline constexpr auto enum_words<LongInputs> = std::to_array<const char*>({"cut", "skip", "refuse"});
enum class LongTargets { kRefuse, kSkip };
template <>
inline constexpr auto enum_words<LongTargets> = std::to_array<const char*>({"refuse", "skip"});

struct TaskSourceOptions {
  int64_t encoder_length = 512;
  int64_t decoder_length = 114;
  uint64_t seed = 0;                          // of the order, another one every epoch
  int64_t batch_size = 8;                     // examples a step
  LongInputs long_inputs = LongInputs::kCut;  // the EOS is kept
  LongTargets long_targets = LongTargets::kRefuse;
};

class TaskSource : public ExampleSource {
 public:
  // Tokenizes the examples. Throws Error for lengths that do not fit, if no example is left, and with kRefuse for a
  // text that is too long, naming the first one's place and the length that all of them need.
  TaskSource(std::span<const TaskExample> examples, const Vocabulary& vocabulary, const TaskSourceOptions& options);

  Batch rows(int64_t step, int64_t first, int64_t count) const override;
  SourceShape shape() const override { return {options_.batch_size, options_.encoder_length, options_.decoder_length}; }
  int64_t examples_per_epoch() const override { return static_cast<int64_t>(examples_.size()); }

  // Texts that were too long, and the place of the first; "" if none was.
  struct Long {
    int64_t count = 0;
    std::string first;
  };
  const Long& cut_inputs() const { return cut_; }
  const Long& skipped_examples() const { return skipped_; }

 private:
  struct Ids {
    std::vector<int32_t> input, target;
  };
  std::vector<Ids> examples_;
  TaskSourceOptions options_;
  Long cut_, skipped_;
};

}  // namespace switchyard
