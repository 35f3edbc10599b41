#include "tasks/long_texts.h"

#include <algorithm>

#include "base/error.h"

namespace switchyard {
namespace {

BadRow row_of(const TaskExample& example, const LongText& found, int64_t encoder_length) {
  return {example.place,
          join("an input of ", found.tokens + 1, " tokens with its EOS, expected at most ", encoder_length)};
}

}  // namespace

std::vector<LongText> find_long_texts(std::span<const TaskExample> examples, std::string TaskExample::*text,
                                      const Vocabulary& vocabulary, int64_t most) {
  std::vector<LongText> found;
  for (size_t n = 0; n < examples.size(); ++n) {
    const auto tokens = static_cast<int64_t>(vocabulary.encode(examples[n].*text).size());
    if (tokens > most) found.push_back({n, tokens});
  }
  return found;
}

void refuse_long_inputs(std::span<const TaskExample> examples, const std::vector<LongText>& found,
                        int64_t encoder_length) {
  if (found.empty()) return;
  constexpr size_t kShown = 5;
  int64_t longest = 0;
  std::string listed;
  for (size_t n = 0; n < found.size(); ++n) {
    longest = std::max(longest, found[n].tokens + 1);
    if (n >= kShown) continue;
    const auto row = row_of(examples[found[n].example], found[n], encoder_length);
    listed += "\n  " + row.place + ": " + row.problem;
  }
  if (found.size() > kShown) listed += "\n  ...";
  SY_CHECK(false, found.size(), " of ", examples.size(), " inputs are longer than ", encoder_length,
           " tokens; all of them fit an encoder length of ", longest, ", or let them be cut or skipped:", listed);
}

std::vector<BadRow> leave_out(std::vector<TaskExample>& examples, const std::vector<LongText>& found,
                              int64_t encoder_length) {
  SY_CHECK(found.empty() || found.size() < examples.size(), "no example is left: all ", examples.size(),
           " inputs are longer than ", encoder_length, " tokens");
  std::vector<BadRow> rows;
  std::vector<TaskExample> kept;
  for (size_t n = 0; n < examples.size(); ++n) {
    if (rows.size() < found.size() && found[rows.size()].example == n)
      rows.push_back(row_of(examples[n], found[rows.size()], encoder_length));
    else
      kept.push_back(std::move(examples[n]));
  }
  examples = std::move(kept);
  return rows;
}

}  // namespace switchyard
