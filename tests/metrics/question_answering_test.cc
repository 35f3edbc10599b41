#include "metrics/question_answering.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace switchyard {
namespace {

using Answers = std::vector<std::vector<std::string>>;
using Texts = std::vector<std::string>;

// Fixtures of T5's qa_utils_test.py and metrics_test.py.
TEST(Answers, AreNormalizedAsInT5) {
  const std::string answer = "`Needs\tA_LOT of the 'normalization'.\"‘";
  EXPECT_EQ(normalize_trivia_qa(answer), "needs lot of normalization");
  EXPECT_EQ(normalize_squad(answer), "needs alot of normalization‘");
}

TEST(Answers, AreScoredAsInT5) {
  const Answers answers = {{"big moose", "hippo"}, {"correct1"}, {"correct2.1", "correct2.2"}, {"a", "b"}};
  const Texts predictions = {"‘a big  Moose!‘", "wrong", "correct2.2", "c"};
  const auto squad = score_answers(answers, predictions, AnswerForm::kSquad);
  EXPECT_NEAR(squad.exact_match, 25, 1e-9);
  EXPECT_NEAR(squad.f1, 35, 1e-9);
  const auto trivia = score_answers(answers, predictions, AnswerForm::kTriviaQa);
  EXPECT_NEAR(trivia.exact_match, 50, 1e-9);
  EXPECT_NEAR(trivia.f1, 50, 1e-9);
  const auto partly = score_answers(Answers{{"abc abd", "$$$$"}}, Texts{"abd"}, AnswerForm::kSquad);
  EXPECT_EQ(partly.exact_match, 0);
  EXPECT_NEAR(partly.f1, 200.0 / 3, 1e-9);
}

TEST(Answers, ThatNormalizeToNothing) {
  EXPECT_EQ(normalize_squad("The."), "");
  const auto score = score_answers(Answers{{"the"}, {"cat"}}, Texts{"", ""}, AnswerForm::kSquad);
  EXPECT_EQ(score.exact_match, 50);  // an empty prediction equals an answer that is only an article
  EXPECT_EQ(score.f1, 0);            // but shares no token with it
}

TEST(Answers, KeepArticlesInsideOtherWords) {
  EXPECT_EQ(normalize_squad("théa an été Anna"), "théa été anna");
  EXPECT_EQ(normalize_squad("a1 the\u00a0end"), "a1 end");
}

TEST(Answers, ArePerfectAtExactlyAHundred) {
  const auto score = score_answers(Answers(5457, {"yes"}), Texts(5457, "yes"), AnswerForm::kSquad);
  EXPECT_EQ(score.exact_match, 100);
  EXPECT_EQ(score.f1, 100);
}

TEST(Answers, AreNeeded) {
  EXPECT_THROW(score_answers(Answers{{}}, Texts{"x"}, AnswerForm::kSquad), Error);
  EXPECT_THROW(score_answers(Answers{{"x"}}, Texts{}, AnswerForm::kSquad), Error);
}

}  // namespace
}  // namespace switchyard
