// Exact match and token F1 of answers, as in the evaluation scripts of SQuAD v1.1 and TriviaQA (and T5's qa_utils).
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

// Lower case, without ASCII punctuation, articles (a, an, the) and extra white space.
std::string normalize_squad(std::string_view answer);

// As above, but punctuation, also ‘ ’ ´ ` _, becomes a space.
std::string normalize_trivia_qa(std::string_view answer);

enum class AnswerForm { kSquad, kTriviaQa };

struct AnswerScore {
  double exact_match = 0, f1 = 0;  // percent, mean over questions of the best over each question's answers
};

// answers[n] belong to predictions[n]. Throws Error if there are none, or a question has no answer.
AnswerScore score_answers(std::span<const std::vector<std::string>> answers, std::span<const std::string> predictions,
                          AnswerForm form);

}  // namespace switchyard
