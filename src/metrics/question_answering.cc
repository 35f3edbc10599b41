#include "metrics/question_answering.h"

#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "metrics/unicode.h"

namespace switchyard {
namespace {

// A run of word characters that is an article becomes a space: re.sub(r"\b(a|an|the)\b", " ", text).
std::u32string without_articles(std::u32string_view text) {
  std::u32string result;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    while (end < text.size() && is_word(text[end])) ++end;
    const auto word = text.substr(begin, end - begin);
    if (word == U"a" || word == U"an" || word == U"the")
      result += U' ';
    else
      result += word;
    if (end < text.size()) result += text[end];
    begin = end + 1;
  }
  return result;
}

template <class IsPunctuation>
std::string normalize(std::string_view answer, bool punctuation_to_space, const IsPunctuation& punctuation) {
  std::u32string kept;
  for (const char32_t character : lower_case(decode_utf8(answer))) {
    if (!punctuation(character))
      kept += character;
    else if (punctuation_to_space)
      kept += U' ';
  }
  return join_words(split_words(encode_utf8(without_articles(kept))));
}

double token_f1(const std::vector<std::string>& target, const std::vector<std::string>& prediction) {
  std::unordered_map<std::string_view, int64_t> left;
  for (const auto& token : target) ++left[token];
  int64_t same = 0;
  for (const auto& token : prediction) {
    const auto found = left.find(token);
    if (found == left.end() || found->second == 0) continue;
    --found->second;
    ++same;
  }
  if (same == 0) return 0;
  const double precision = static_cast<double>(same) / static_cast<double>(prediction.size());
  const double recall = static_cast<double>(same) / static_cast<double>(target.size());
  return 2 * precision * recall / (precision + recall);
}

}  // namespace

std::string normalize_squad(std::string_view answer) { return normalize(answer, false, is_ascii_punctuation); }

std::string normalize_trivia_qa(std::string_view answer) {
  return normalize(answer, true, [](char32_t c) {
    return is_ascii_punctuation(c) || c == U'‘' || c == U'’' || c == U'´' || c == U'`' || c == U'_';
  });
}

AnswerScore score_answers(std::span<const std::vector<std::string>> answers, std::span<const std::string> predictions,
                          AnswerForm form) {
  SY_CHECK(answers.size() == predictions.size(), "metrics: answers of ", answers.size(), " questions but ",
           predictions.size(), " predictions");
  SY_CHECK(!answers.empty(), "metrics: nothing to score");
  const auto normalized = [form](std::string_view text) {
    return form == AnswerForm::kSquad ? normalize_squad(text) : normalize_trivia_qa(text);
  };
  AnswerScore sum;
  for (size_t n = 0; n < answers.size(); ++n) {
    SY_CHECK(!answers[n].empty(), "metrics: question ", n + 1, " has no answer to compare with");
    const auto prediction = normalized(predictions[n]);
    const auto prediction_tokens = split_words(prediction);
    double exact = 0, f1 = 0;
    for (const auto& answer : answers[n]) {
      const auto target = normalized(answer);
      exact = std::max(exact, target == prediction ? 1.0 : 0.0);
      f1 = std::max(f1, token_f1(split_words(target), prediction_tokens));
    }
    sum.exact_match += exact;
    sum.f1 += f1;
  }
  const double count = static_cast<double>(answers.size());
  return {100.0 * (sum.exact_match / count), 100.0 * (sum.f1 / count)};  // so that a perfect score is 100 exactly
}

}  // namespace switchyard
