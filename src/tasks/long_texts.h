// Inputs that an encoder can't read whole, and targets that an output can't reach: found before a model is run, so that
// they can be named, left out or refused instead of being cut unseen.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tasks/examples.h"
#include "text/vocabulary.h"

namespace switchyard {

struct LongText {
  size_t example;  // its number among the given ones
  int64_t tokens;  // without EOS
};

// The examples whose `text`, &TaskExample::inputs or &TaskExample::targets, has more than `most` tokens, EOS not
// counted; in their order.
std::vector<LongText> find_long_texts(std::span<const TaskExample> examples, std::string TaskExample::*text,
                                      const Vocabulary& vocabulary, int64_t most);

// Throws Error naming the first of `found` by their places, if there are any.
void refuse_long_inputs(std::span<const TaskExample> examples, const std::vector<LongText>& found,
                        int64_t encoder_length);

// Takes the examples of `found` out and returns them as rows that were skipped. Throws Error if none is left.
std::vector<BadRow> leave_out(std::vector<TaskExample>& examples, const std::vector<LongText>& found,
                              int64_t encoder_length);

}  // namespace switchyard
