// A task's examples as training batches: one example a row, inputs and targets with EOS. A batch is a pure function of
// (examples, options, step), as of every source.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/example_source.h"
#include "tasks/examples.h"
#include "text/vocabulary.h"

namespace switchyard {

// What happens to examples whose targets, EOS included, do not fit. They are never cut.
enum class LongTargets { kRefuse, kLeaveOut };

struct TaskSourceOptions {
  int64_t encoder_length = 512;  // longer inputs are cut, the EOS kept
  int64_t decoder_length = 114;
  uint64_t seed = 0;       // of the order, another one every epoch
  int64_t batch_size = 8;  // examples a step
  LongTargets long_targets = LongTargets::kRefuse;
};

class TaskSource : public ExampleSource {
 public:
  // Tokenizes the examples. Throws Error for lengths that do not fit, if no example is left, and with
  // kRefuse for a target that is too long, naming the first one's place and the length that all of them need.
  TaskSource(std::span<const TaskExample> examples, const Vocabulary& vocabulary, const TaskSourceOptions& options);

  Batch rows(int64_t step, int64_t first, int64_t count) const override;
  SourceShape shape() const override { return {options_.batch_size, options_.encoder_length, options_.decoder_length}; }
  int64_t examples_per_epoch() const override { return static_cast<int64_t>(examples_.size()); }

  int64_t truncated_inputs() const { return truncated_inputs_; }
  const std::string& first_truncated() const { return first_truncated_; }  // its place; "" if none is
  int64_t left_out() const { return left_out_; }

 private:
  struct Ids {
    std::vector<int32_t> input, target;
  };
  std::vector<Ids> examples_;
  TaskSourceOptions options_;
  int64_t truncated_inputs_ = 0, left_out_ = 0;
  std::string first_truncated_;
};

}  // namespace switchyard
