// Where training examples come from: pre-training text, and whatever else fills batches of this form.
#pragma once

#include "data/batch.h"

namespace switchyard {

// Of every batch of a source, over all shards.
struct SourceShape {
  int64_t batch_size = 0;      // rows
  int64_t encoder_length = 0;  // positions a row
  int64_t decoder_length = 0;
  int64_t positions() const { return batch_size * (encoder_length + decoder_length); }
};

class ExampleSource {
 public:
  virtual ~ExampleSource() = default;

  // This shard's rows of a step's batch, steps from 0; first_example is the first row's number in the whole batch. A
  // function of the step alone, so that nothing has to be saved to resume. Thread-safe.
  virtual Batch batch(int64_t step) const = 0;

  virtual SourceShape shape() const = 0;

  // Examples until all have been seen once; 0 where there is no such number.
  virtual int64_t examples_per_epoch() const = 0;
};

}  // namespace switchyard
