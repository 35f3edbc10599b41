// A model whose logits are a function of the prompt and its tokens: searches are tested without a model.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "generate/search.h"

namespace switchyard {

struct StubModel {
  // Logits [vocab] of what follows `history` (start token first) of prompt `prompt`.
  using Logits = std::function<std::vector<float>(size_t prompt, const std::vector<int32_t>& history)>;
  explicit StubModel(Logits logits_) : logits(std::move(logits_)) {}

  Logits logits;
  size_t rows_advanced = 0;  // over all steps
};

// A search for each prefix, prompt n with the number options.number + n.
inline std::vector<Hypotheses> search(StubModel& model, const std::vector<std::vector<int32_t>>& prefixes,
                                      const SearchOptions& options,
                                      const std::function<SearchHooks(size_t prompt)>& hooks = {}) {
  std::vector<Hypotheses> results;
  for (size_t prompt = 0; prompt < prefixes.size(); ++prompt) {
    SearchOptions own = options;
    own.number += prompt;
    const auto running = start_search(own, prefixes[prompt], hooks ? hooks(prompt) : SearchHooks{});
    std::vector<std::vector<int32_t>> histories = {{options.start_id}};
    histories[0].insert(histories[0].end(), prefixes[prompt].begin(), prefixes[prompt].end());
    while (!histories.empty()) {
      model.rows_advanced += histories.size();
      std::vector<float> logits;
      for (const auto& history : histories) {
        const auto row = model.logits(prompt, history);
        logits.insert(logits.end(), row.begin(), row.end());
      }
      std::vector<std::vector<int32_t>> longer;
      for (const auto& [row, id] : running->advance(logits)) {
        longer.push_back(histories.at(row));
        longer.back().push_back(id);
      }
      histories = std::move(longer);
    }
    results.push_back(running->results());
  }
  return results;
}

}  // namespace switchyard
