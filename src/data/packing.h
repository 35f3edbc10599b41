// Short examples packed into long rows (T5, seqio): one behind the other in both stacks, told apart by segments.
//
// A step takes the examples that come next, in order, puts each into the first row with room for its inputs and for its
// targets, and ends before the first example that no row has room for. So no example is left out, taken twice or cut,
// and where a step begins follows from the lengths of the examples before it alone: nothing has to be saved to resume.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "data/example_source.h"

namespace switchyard {

class PackedSource : public ExampleSource {
 public:
  // `examples` gives one a step, padded at the end, whose lengths become those of the rows. Throws Error for a source
  // of several rows a step and a batch_size below 1.
  PackedSource(std::unique_ptr<ExampleSource> examples, int64_t batch_size);

  // The first call for a step looks at the lengths of all examples before it, once; steps in order cost nothing more.
  Batch rows(int64_t step, int64_t first, int64_t count) const override;
  SourceShape shape() const override;
  int64_t examples_per_epoch() const override { return examples_->examples_per_epoch(); }
  std::vector<std::string> part_names() const override { return examples_->part_names(); }

 private:
  struct Step;
  std::shared_ptr<const Step> pack(int64_t step, int64_t first_example) const;
  std::shared_ptr<const Step> step_of(int64_t number) const;

  std::unique_ptr<ExampleSource> examples_;
  int64_t batch_size_;
  mutable std::mutex mutex_;
  mutable std::vector<int64_t> first_example_ = {0};  // of every step so far, and of the one after them
  mutable std::shared_ptr<const Step> latest_;        // what was asked for last
};

}  // namespace switchyard
