#include "tasks/long_texts.h"

namespace switchyard {

std::vector<LongText> find_long_texts(std::span<const TaskExample> examples, std::string TaskExample::*text,
                                      const Vocabulary& vocabulary, int64_t most) {
  std::vector<LongText> found;
  for (size_t n = 0; n < examples.size(); ++n) {
    const auto tokens = static_cast<int64_t>(vocabulary.encode(examples[n].*text).size());
    if (tokens > most) found.push_back({n, tokens});
  }
  return found;
}

}  // namespace switchyard
