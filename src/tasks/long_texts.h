// Texts with more tokens than a model reads or writes: found before it is run, so that none is cut unseen.
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

}  // namespace switchyard
