// Corpus BLEU (Papineni et al. 2002) with sacreBLEU's numbers: up to 4-grams, case kept, smoothing "exp".
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

enum class BleuTokens {
  k13a,            // sacreBLEU's default: mteval-v13a, for Western languages
  kInternational,  // mteval-v14: Unicode's punctuation and symbols; what T5 reports
};

// Tokens joined by spaces.
std::string bleu_tokenize(std::string_view text, BleuTokens tokens);

// Percent. references[n] are the translations that predictions[n] may have, at least one.
double corpus_bleu(std::span<const std::vector<std::string>> references, std::span<const std::string> predictions,
                   BleuTokens tokens);

}  // namespace switchyard
