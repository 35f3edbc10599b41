// Where training examples come from: pre-training text, and whatever else fills batches of this form.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "data/batch.h"

namespace switchyard {

// Of every batch of a source.
struct SourceShape {
  int64_t batch_size = 0;      // rows
  int64_t encoder_length = 0;  // positions a row
  int64_t decoder_length = 0;
  int64_t positions() const { return batch_size * (encoder_length + decoder_length); }
};

// Throws Error unless rows [first, first + count) are rows of a batch of that shape.
inline void check_rows(const SourceShape& shape, int64_t first, int64_t count) {
  SY_CHECK(first >= 0 && count >= 0 && first <= shape.batch_size - count, "rows ", first, " to ", first + count - 1,
           " of a batch of ", shape.batch_size);
}

class ExampleSource {
 public:
  virtual ~ExampleSource() = default;

  // Rows [first, first + count) of a step's batch, steps from 0: those that one rank works on. A row is a function of
  // its step and number alone, so that nothing has to be saved to resume and every cut of a batch has the same rows.
  // Throws Error for rows that the batch does not have. Thread-safe.
  virtual Batch rows(int64_t step, int64_t first, int64_t count) const = 0;

  Batch batch(int64_t step) const { return rows(step, 0, shape().batch_size); }

  virtual SourceShape shape() const = 0;

  // Examples until all have been seen once; 0 where there is no such number.
  virtual int64_t examples_per_epoch() const = 0;

  // What Batch::part numbers; empty where batches have no parts.
  virtual std::vector<std::string> part_names() const { return {}; }
};

}  // namespace switchyard
