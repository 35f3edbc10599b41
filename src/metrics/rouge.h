// ROUGE-1, -2, -L and -Lsum (Lin 2004), F-measure, with the numbers of the package rouge-score.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

struct RougeOptions {
  bool stem = true;  // Porter's stems of words longer than three letters; T5's own metric compares words as they are
};

struct Rouge {
  double rouge1 = 0, rouge2 = 0, rouge_l = 0, rouge_lsum = 0;
};

// One summary, from 0 to 1, each score the best over the targets. Rouge-Lsum takes lines as sentences. Throws Error if
// there is no target.
Rouge score_summary(std::span<const std::string> targets, const std::string& prediction, const RougeOptions& options);

// Percent, mean over summaries, where " . " ends a sentence too (as in T5). T5 prints the median of means of random
// samples instead of the mean; they agree to about a tenth of the spread of those.
Rouge score_summaries(std::span<const std::vector<std::string>> targets, std::span<const std::string> predictions,
                      const RougeOptions& options);

}  // namespace switchyard
