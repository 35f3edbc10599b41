// T5's fixtures of preprocessors_test.py and postprocessors_test.py.
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "base/error.h"
#include "tasks/examples.h"
#include "tasks/row_forms.h"
#include "tasks/score.h"
#include "tasks/scratch_folder.h"
#include "tasks/text_forms.h"
#include "tasks/winograd.h"

namespace switchyard {
namespace {

using Texts = std::vector<std::string>;

std::vector<TaskExample> examples_of(const std::string& name, const Json& record) {
  const auto task = find_task(name);
  std::vector<TaskExample> examples;
  for (const auto& row : make_rows(task, record)) examples.push_back(make_example(task, row));
  return examples;
}

TEST(TextForms, PadPunctuationAsT5) {
  EXPECT_EQ(pad_punctuation("This  is a string with \"punctuation (1845-1986) \"."),
            "This is a string with \" punctuation ( 1845 - 1986 ) \" . ");
  EXPECT_EQ(pad_punctuation("\"This  is a string with \"punctuation (1845-1986) \"."),
            " \" This is a string with \" punctuation ( 1845 - 1986 ) \" . ");
  EXPECT_EQ(pad_punctuation("\"Introducción (la vídeo)\"."), " \" Introducción ( la vídeo ) \" . ");
}

TEST(TextForms, PadNonspacedLanguagesAsT5) {
  EXPECT_EQ(pad_nonspaced_languages("Hello there. 你好吗？"), "Hello there. 你 好 吗 ？");
}

TEST(TextForms, RoundSimilaritiesAsT5) {
  EXPECT_EQ(similarity_text(2.8), "2.8");
  EXPECT_EQ(similarity_text(1.66), "1.6");
  EXPECT_EQ(similarity_text(4.5), "4.4");  // 22.5 is nearest to two; the even one
  EXPECT_EQ(similarity_text(0), "0.0");
}

TEST(TextForms, ReadNumbersAsPython) {
  EXPECT_EQ(parse_number("10", -1), 10);
  EXPECT_EQ(parse_number("10.", -1), 10);
  EXPECT_EQ(parse_number(" +3.8\n", -1), 3.8);
  EXPECT_EQ(parse_number(".5e1", -1), 5);
  EXPECT_EQ(parse_number("1_0", -1), 10);
  EXPECT_EQ(parse_number("1e999", -1), INFINITY);
  for (const char* text : {"asdf", "", "3.8 stars", "1__0", "_1", "0x10", "+-1", "3,8", "nan(1)"})
    EXPECT_EQ(parse_number(text, -2), -2) << text;
}

TEST(Glue, TakesFieldsInItsOrderAndLabelsByNumber) {
  const auto task = parse_task(
      "[task]\ninputs = \"qqp q1: {q1} q2: {q2} q3: {q3}\"\n"
      "labels = [\"not_duplicate\", \"duplicate\"]\nmetrics = [\"f1\"]",
      "qqp", "qqp.toml");
  Json row = {{"q1", "How so?"}, {"q2", "Why not?"}, {"q3", "Who?"}, {"label", 0}};
  EXPECT_EQ(make_example(task, row).inputs, "qqp q1: How so? q2: Why not? q3: Who?");
  EXPECT_EQ(make_example(task, row).targets, "not_duplicate");
  row["label"] = -1;
  EXPECT_EQ(make_example(task, row).targets, "<unk>");
  row["label"] = 2;
  EXPECT_NE(message_of([&] { make_example(task, row); }).find("label 2 is none of 0 ... 1 (not_duplicate, duplicate)"),
            std::string::npos);
}

TEST(Squad, MatchesT5) {
  const auto found = examples_of("squad", {{"context", "Some context."},
                                           {"question", "A question?"},
                                           {"answers", {{"text", {"The answer.", "Another answer."}}}}});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].inputs, "question: A question ? context: Some context . ");
  EXPECT_EQ(found[0].targets, "The answer . ");
  EXPECT_EQ(found[0].references, (Texts{"The answer . ", "Another answer . ", "The answer.", "Another answer."}));
}

TEST(Multirc, MatchesT5) {
  const auto found = examples_of("superglue_multirc",
                                 {{"paragraph",
                                   "<b>Sent 1: </b>Once upon a time, there was a squirrel named Joey.<br><b>Sent 2: "
                                   "</b>Joey loved to go outside and play with his cousin Jimmy."},
                                  {"question", "Why was Joey surprised the morning he woke up for breakfast?"},
                                  {"answer", "There was only pie to eat"},
                                  {"label", 1},
                                  {"idx", {{"paragraph", 5}, {"question", 1}, {"answer", 3}}}});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(
      found[0].inputs,
      "multirc question: Why was Joey surprised the morning he woke up for breakfast? answer: There was only pie to "
      "eat paragraph: Sent 1: Once upon a time, there was a squirrel named Joey. Sent 2: Joey loved to go outside "
      "and play with his cousin Jimmy.");
  EXPECT_EQ(found[0].targets, "True");
  EXPECT_EQ(found[0].group, "1");
}

TEST(Record, MakesARowAnAnswerAndSentencesOfHighlights) {
  const Json flat = {{"query", "It was @placeholder."},
                     {"entities", {"it", "this", "that"}},
                     {"passage", "This is the passage\n@highlight\nAnother one.\n@highlight\nThe last"},
                     {"answers", {"this", "that"}},
                     {"idx", {{"passage", 1}, {"query", 2}}}};
  const auto found = examples_of("superglue_record", flat);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(
      found[0].inputs,
      "record query: It was @placeholder. entities: it, this, that passage: This is the passage. Another one. The "
      "last");
  EXPECT_EQ(found[0].targets, "this");
  EXPECT_EQ(found[1].targets, "that");
  EXPECT_EQ(found[0].group, found[1].group);
  // SuperGLUE's own files say where the entities stand, in characters, the last one included.
  const Json published = {
      {"passage",
       {{"text", "Zoë saw Bob, and Bob saw Ann."},
        {"entities", {{{"start", 8}, {"end", 10}}, {{"start", 17}, {"end", 19}}, {{"start", 0}, {"end", 2}}}}}},
      {"qas",
       {{{"query", "@placeholder saw Ann."},
         {"idx", 7},
         {"answers", {{{"start", 17}, {"end", 19}, {"text", "Bob"}}}}}}},
      {"idx", 0}};
  const auto own = examples_of("superglue_record", published);
  ASSERT_EQ(own.size(), 1u);
  EXPECT_EQ(own[0].inputs,
            "record query: @placeholder saw Ann. entities: Bob, Zoë passage: Zoë saw Bob, and Bob saw Ann.");
  EXPECT_EQ(own[0].targets, "Bob");
}

TEST(Wsc, StarsThePronoun) {
  Json row = {{"text", "Mitchell asked Tom if he could lend some money."},
              {"span1_text", "Tom"},
              {"span2_text", "he"},
              {"span1_index", 2},
              {"span2_index", 4},
              {"label", 1}};
  auto found = examples_of("superglue_wsc", row);
  EXPECT_EQ(found.at(0).inputs, "wsc: Mitchell asked Tom if *he* could lend some money.");
  EXPECT_EQ(found.at(0).targets, "Tom");
  EXPECT_EQ(found.at(0).target_class, 1);
  row["span2_index"] = 5;
  EXPECT_EQ(message_of([&] { examples_of("superglue_wsc", row); }), "word 5 is \"could\", and span2_text \"he\"");
  row["span2_index"] = 0;
  EXPECT_THROW(examples_of("superglue_wsc", row), Error);
}

TEST(Dpr, StarsAPronounAtASentencesEnd) {
  const Json row = {{"sentence", "Dave told Tom that the book was unreadable to him."},
                    {"pronoun", "him"},
                    {"candidates", {"Dave", "Tom"}},
                    {"label", 1}};
  const auto found = examples_of("dpr", row);
  EXPECT_EQ(found.at(0).inputs, "wsc: Dave told Tom that the book was unreadable to *him*.");
  EXPECT_EQ(found.at(0).targets, "Tom");
}

TEST(Wnli, FindsTheReferent) {
  const std::pair<std::array<std::string, 2>, std::array<std::string, 2>> cases[] = {
      {{"The fish ate the worm. It was tasty.", "The worm was tasty."},
       {"wsc: The fish ate the worm. *It* was tasty.", "The worm"}},
      {{"The fish ate the worm. It was tasty.", "The fish was tasty."},
       {"wsc: The fish ate the worm. *It* was tasty.", "The fish"}},
      {{"Bob's father was angry with him.", "Bob's father was angry with Bob's son."},
       {"wsc: Bob's father was angry with *him* .", "Bob's son"}}};
  for (const auto& [sentences, expected] : cases) {
    const auto found =
        examples_of("glue_wnli_simple", {{"sentence1", sentences[0]}, {"sentence2", sentences[1]}, {"label", 1}});
    EXPECT_EQ(found.at(0).inputs, expected[0]);
    EXPECT_EQ(found.at(0).targets, expected[1]);
  }
  EXPECT_THROW(find_referent("No such word here.", "None."), Error);
}

TEST(Wsc, OutputNamesTheReferent) {
  const std::tuple<const char*, const char*, int64_t> cases[] = {{"the cat", "cat", 1},
                                                                 {"Bob's hat", "Bob", 0},
                                                                 {"Bob's hat", "Bob's hat", 1},
                                                                 {"potato", "turnip", 0},
                                                                 {"potato", "Potato", 1},
                                                                 {"a potato", "my potato", 1},
                                                                 {"fuzzy bunny", "fuzzy hungry bunny", 1},
                                                                 {"", "cat", -1},
                                                                 {"a this", "cat", -1}};
  for (const auto& [prediction, referent, expected] : cases)
    EXPECT_EQ(names_referent(prediction, referent), expected) << prediction << " / " << referent;
}

TEST(ClosedBook, TakesTheFirstAnswer) {
  const auto nq = examples_of("nq_open", {{"question", "who?"}, {"answers", {"Mary-Kate", "Ashley"}}});
  EXPECT_EQ(nq.at(0).inputs, "nq question: who?");
  EXPECT_EQ(nq.at(0).targets, "Mary-Kate");
  EXPECT_EQ(nq.at(0).references, (Texts{"Mary-Kate", "Ashley"}));
  const auto trivia = examples_of(
      "trivia_qa", {{"question", "What?"}, {"answer", {{"value", "M and A"}, {"aliases", {"A and M", "M and A"}}}}});
  EXPECT_EQ(trivia.at(0).inputs, "trivia_qa question: What?");
  EXPECT_EQ(trivia.at(0).targets, "M and A");
  EXPECT_EQ(trivia.at(0).references, (Texts{"A and M", "M and A"}));
  const auto news = examples_of("cnn_dailymail", {{"article", "An article."}, {"highlights", "A summary."}});
  EXPECT_EQ(news.at(0).inputs, "summarize: An article.");
  EXPECT_EQ(news.at(0).targets, "A summary.");
}

TEST(Classes, AreNamedExactly) {
  const auto task = find_task("superglue_copa");
  EXPECT_EQ(predicted_class(task, {}, "choice2"), 1);
  EXPECT_EQ(predicted_class(task, {}, "Choice2"), -1);
  EXPECT_EQ(predicted_class(task, {}, ""), -1);
}

}  // namespace
}  // namespace switchyard
