#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "metrics/bleu.h"
#include "metrics/porter_stemmer.h"
#include "metrics/rouge.h"

namespace switchyard {
namespace {

using Texts = std::vector<std::string>;
using References = std::vector<Texts>;

// Fixtures of T5's metrics_test.py.
TEST(Bleu, MatchesT5OnItsSmallCases) {
  const std::string text = "this is a string with several words";
  EXPECT_NEAR(corpus_bleu(References{{text}, {text}}, Texts{text, text}, BleuTokens::kInternational), 100, 1e-9);
  EXPECT_EQ(corpus_bleu(References{{text}}, Texts{""}, BleuTokens::k13a), 0);
  EXPECT_NEAR(corpus_bleu(References{{"", text}, {text, ""}}, Texts{text, text}, BleuTokens::kInternational), 100,
              1e-9);
}

TEST(Bleu, IsWorkedOutByHand) {
  // 1-grams 3 of 4, 2-grams 1 of 3, 3-grams 0 of 2 and 4-grams 0 of 1, which count as 1/2 and 1/4; no brevity penalty.
  const double expected = 100 * std::pow(3.0 / 4 * 1.0 / 3 * (0.5 / 2) * (0.25 / 1), 0.25);
  EXPECT_NEAR(corpus_bleu(References{{"the cat sat down"}}, Texts{"the cat down it"}, BleuTokens::k13a), expected,
              1e-9);
  EXPECT_EQ(corpus_bleu(References{{"one two three"}}, Texts{"one two three"}, BleuTokens::k13a), 0);  // no 4-gram
}

TEST(Bleu, Tokenizes) {
  EXPECT_EQ(bleu_tokenize("Mr. O'Neil (1,234.5-) &quot;x&quot;...", BleuTokens::k13a),
            "Mr . O'Neil ( 1,234.5 - ) \" x \" . . .");
  EXPECT_EQ(bleu_tokenize("„Ja“, 1,5 € – 2000.", BleuTokens::k13a), "„Ja“ , 1,5 € – 2000 .");
  EXPECT_EQ(bleu_tokenize("„Ja“, 1,5 € – 2000.", BleuTokens::kInternational), "„ Ja “ , 1,5 € – 2000.");
}

TEST(Rouge, IdenticalTextsAndEmptyOnes) {
  const auto same = score_summaries(References{{"this is a string"}}, Texts{"this is a string"}, {});
  EXPECT_NEAR(same.rouge1, 100, 1e-9);
  EXPECT_NEAR(same.rouge2, 100, 1e-9);
  EXPECT_NEAR(same.rouge_lsum, 100, 1e-9);
  EXPECT_EQ(score_summaries(References{{"this is a string"}}, Texts{""}, {}).rouge1, 0);
  EXPECT_THROW(score_summaries(References{{}}, Texts{"x"}, {}), Error);
}

// Cases of rouge-score's rouge_scorer_test.py.
TEST(Rouge, MatchesRougeScore) {
  const auto one = score_summary(Texts{"testing one two"}, "testing", {.stem = false});
  EXPECT_NEAR(one.rouge1, 0.5, 1e-9);
  EXPECT_EQ(one.rouge2, 0);
  EXPECT_NEAR(one.rouge_l, 0.5, 1e-9);
  // Lin's example: w1 w2 and w3 w4 w5 against w1 w2 w6 w7 w8 and w1 w3 w8 w9 w5: the union of
  // both subsequences has 4 of the target's 5 words and of the prediction's 10.
  const auto union_lcs = score_summary(Texts{"w1 w2 w3 w4 w5"}, "w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", {});
  EXPECT_NEAR(union_lcs.rouge_lsum, 2 * 0.8 * 0.4 / (0.8 + 0.4), 1e-9);
  EXPECT_NEAR(score_summary(Texts{"the friends had a meal"}, "the friends have meals", {.stem = true}).rouge1,
              2 * (3.0 / 4) * (3.0 / 5) / (3.0 / 4 + 3.0 / 5), 1e-9);
}

TEST(Rouge, TakesTheBestTargetForEachScore) {
  const auto best = score_summary(Texts{"a b", "b c d"}, "a b", {});
  EXPECT_NEAR(best.rouge1, 1, 1e-9);
  EXPECT_NEAR(score_summary(Texts{"x", "b c d"}, "b d", {}).rouge_l, 0.8, 1e-9);
}

TEST(PorterStemmer, KnowsItsRulesAndExceptions) {
  const std::pair<const char*, const char*> words[] = {
      {"caresses", "caress"},     {"ponies", "poni"},       {"ties", "tie"},         {"flies", "fli"},
      {"dying", "die"},           {"agreed", "agre"},       {"feed", "feed"},        {"hopping", "hop"},
      {"falling", "fall"},        {"filing", "file"},       {"enjoy", "enjoy"},      {"happy", "happi"},
      {"rational", "ration"},     {"generically", "gener"}, {"theology", "theolog"}, {"adoption", "adopt"},
      {"controlling", "control"}, {"yyyy", "yyyi"},         {"died", "die"}};
  for (const auto& [word, stem] : words) EXPECT_EQ(porter_stem(word), stem) << word;
}

}  // namespace
}  // namespace switchyard
