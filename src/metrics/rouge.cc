#include "metrics/rouge.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "base/error.h"
#include "metrics/porter_stemmer.h"
#include "metrics/unicode.h"

namespace switchyard {
namespace {

using Tokens = std::vector<int32_t>;

// Words of one comparison as numbers: runs of a-z and 0-9 after lower-casing.
class Tokenizer {
 public:
  explicit Tokenizer(bool stem) : stem_(stem) {}

  Tokens tokenize(std::string_view text) {
    Tokens tokens;
    std::string word;
    for (const char c : lower_case(text) + " ") {
      if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
        word += c;
      } else if (!word.empty()) {
        if (stem_ && word.size() > 3) word = porter_stem(std::move(word));
        if (!word.empty())
          tokens.push_back(numbers_.emplace(word, static_cast<int32_t>(numbers_.size())).first->second);
        word.clear();
      }
    }
    return tokens;
  }

  std::vector<Tokens> tokenize_lines(std::string_view text) {
    std::vector<Tokens> lines;
    for (const auto line : split_at(text, '\n'))
      if (!line.empty()) lines.push_back(tokenize(line));
    return lines;
  }

 private:
  bool stem_;
  std::unordered_map<std::string, int32_t> numbers_;
};

double f_measure(double precision, double recall) {
  return precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0;
}

double f_of_counts(size_t hits, size_t target, size_t prediction) {
  return f_measure(static_cast<double>(hits) / static_cast<double>(std::max<size_t>(prediction, 1)),
                   static_cast<double>(hits) / static_cast<double>(std::max<size_t>(target, 1)));
}

double n_gram_score(const Tokens& target, const Tokens& prediction, size_t n) {
  const auto count = [n](const Tokens& tokens) {
    std::map<std::pair<int32_t, int32_t>, size_t> counts;
    for (size_t at = 0; at + n <= tokens.size(); ++at) ++counts[{tokens[at], n == 2 ? tokens[at + 1] : 0}];
    return counts;
  };
  const auto predicted = count(prediction);
  size_t hits = 0;
  for (const auto& [n_gram, times] : count(target)) {
    const auto found = predicted.find(n_gram);
    if (found != predicted.end()) hits += std::min(times, found->second);
  }
  const auto total = [n](const Tokens& tokens) { return tokens.size() >= n ? tokens.size() - n + 1 : 0; };
  return f_of_counts(hits, total(target), total(prediction));
}

// Lengths of the longest common subsequences of all prefixes: [target + 1][prediction + 1].
class CommonSubsequences {
 public:
  CommonSubsequences(const Tokens& target, const Tokens& prediction)
      : target_(target), prediction_(prediction), width_(prediction.size() + 1), table_((target.size() + 1) * width_) {
    for (size_t i = 1; i <= target.size(); ++i)
      for (size_t j = 1; j <= prediction.size(); ++j)
        at(i, j) = target[i - 1] == prediction[j - 1] ? at(i - 1, j - 1) + 1 : std::max(at(i - 1, j), at(i, j - 1));
  }
  size_t longest() { return at(target_.size(), prediction_.size()); }

  // Marks the target's tokens that one longest subsequence takes.
  void mark(std::vector<bool>& taken) {
    size_t i = target_.size(), j = prediction_.size();
    while (i > 0 && j > 0) {
      if (target_[i - 1] == prediction_[j - 1]) {
        taken[--i] = true;
        --j;
      } else if (at(i, j - 1) > at(i - 1, j)) {
        --j;
      } else {
        --i;
      }
    }
  }

 private:
  int32_t& at(size_t i, size_t j) { return table_[i * width_ + j]; }
  const Tokens& target_;
  const Tokens& prediction_;
  size_t width_;
  std::vector<int32_t> table_;
};

// Each target line is covered by the union of its subsequences with all lines of the prediction; a word counts as often
// as both texts have it (section 3.2 of the paper, and ROUGE-1.5.5).
double summary_level_score(const std::vector<Tokens>& target, const std::vector<Tokens>& prediction) {
  std::map<int32_t, int64_t> left_in_target, left_in_prediction;
  size_t target_size = 0, prediction_size = 0, hits = 0;
  for (const auto& line : target) {
    target_size += line.size();
    for (const int32_t token : line) ++left_in_target[token];
  }
  for (const auto& line : prediction) {
    prediction_size += line.size();
    for (const int32_t token : line) ++left_in_prediction[token];
  }
  for (const auto& line : target) {
    std::vector<bool> taken(line.size());
    for (const auto& other : prediction) CommonSubsequences(line, other).mark(taken);
    for (size_t n = 0; n < line.size(); ++n) {
      if (!taken[n] || left_in_target[line[n]] == 0 || left_in_prediction[line[n]] == 0) continue;
      --left_in_target[line[n]];
      --left_in_prediction[line[n]];
      ++hits;
    }
  }
  return f_of_counts(hits, target_size, prediction_size);
}

std::string with_sentence_ends(std::string text) {
  constexpr std::string_view kFullStop = " . ", kLineEnd = " .\n";
  for (size_t at = text.find(kFullStop); at != text.npos; at = text.find(kFullStop, at + kLineEnd.size()))
    text.replace(at, kFullStop.size(), kLineEnd);
  return text;
}

}  // namespace

Rouge score_summary(std::span<const std::string> targets, const std::string& prediction, const RougeOptions& options) {
  SY_CHECK(!targets.empty(), "metrics: a summary without a target to compare with");
  Tokenizer tokenizer(options.stem);
  const auto predicted = tokenizer.tokenize(prediction);
  const auto predicted_lines = tokenizer.tokenize_lines(prediction);
  Rouge best;
  for (const auto& text : targets) {
    const auto target = tokenizer.tokenize(text);
    best.rouge1 = std::max(best.rouge1, n_gram_score(target, predicted, 1));
    best.rouge2 = std::max(best.rouge2, n_gram_score(target, predicted, 2));
    const size_t longest = CommonSubsequences(target, predicted).longest();
    best.rouge_l = std::max(best.rouge_l, f_of_counts(longest, target.size(), predicted.size()));
    best.rouge_lsum = std::max(best.rouge_lsum, summary_level_score(tokenizer.tokenize_lines(text), predicted_lines));
  }
  return best;
}

Rouge score_summaries(std::span<const std::vector<std::string>> targets, std::span<const std::string> predictions,
                      const RougeOptions& options) {
  SY_CHECK(targets.size() == predictions.size(), "metrics: targets of ", targets.size(), " summaries but ",
           predictions.size(), " predictions");
  SY_CHECK(!targets.empty(), "metrics: nothing to score");
  Rouge sum;
  for (size_t n = 0; n < targets.size(); ++n) {
    std::vector<std::string> texts;
    for (const auto& target : targets[n]) texts.push_back(with_sentence_ends(target));
    const auto one = score_summary(texts, with_sentence_ends(predictions[n]), options);
    sum.rouge1 += one.rouge1;
    sum.rouge2 += one.rouge2;
    sum.rouge_l += one.rouge_l;
    sum.rouge_lsum += one.rouge_lsum;
  }
  const auto percent = [&](double total) { return 100.0 * (total / static_cast<double>(targets.size())); };
  return {percent(sum.rouge1), percent(sum.rouge2), percent(sum.rouge_l), percent(sum.rouge_lsum)};
}

}  // namespace switchyard
