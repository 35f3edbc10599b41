#include "tasks/score.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/error.h"
#include "tasks/row_forms.h"

namespace switchyard {
namespace {

using Texts = std::vector<std::string>;

std::map<std::string, double> scores(const std::string& name, const std::vector<Json>& records,
                                     const Texts& predictions) {
  const auto task = find_task(name);
  std::vector<TaskExample> examples;
  for (const auto& record : records)
    for (const auto& row : make_rows(task, record)) examples.push_back(make_example(task, row));
  const auto values = score(task, examples, predictions);
  return {values.begin(), values.end()};
}

TEST(Score, UsesT5sNames) {
  const std::vector<Json> pairs = {{{"premise", "p"}, {"hypothesis", "h"}, {"label", "neutral"}},
                                   {{"premise", "p"}, {"hypothesis", "h"}, {"label", "entailment"}}};
  const auto cb = scores("superglue_cb", pairs, {"neutral", "nonsense"});
  EXPECT_EQ(cb.size(), 2u);
  EXPECT_NEAR(cb.at("mean_3class_f1"), 100.0 / 3, 1e-9);
  EXPECT_NEAR(cb.at("accuracy"), 50, 1e-9);
}

TEST(Score, ReadsNumbers) {
  std::vector<Json> rows;
  for (const double value : {5.0, 1.0, 3.0}) rows.push_back({{"sentence1", "a"}, {"sentence2", "b"}, {"score", value}});
  const auto good = scores("glue_stsb", rows, {"4.0", "0.0", "2.0"});
  EXPECT_NEAR(good.at("pearson_corrcoef"), 100, 1e-9);
  EXPECT_NEAR(good.at("spearman_corrcoef"), 100, 1e-9);
  // An output without a number is -1.
  EXPECT_NEAR(scores("glue_stsb", rows, {"5.0", "very similar", "2.0"}).at("pearson_corrcoef"), 100, 1e-9);
  EXPECT_TRUE(std::isnan(scores("glue_stsb", rows, {"", "", ""}).at("pearson_corrcoef")));
}

TEST(Score, GroupsMultircByQuestion) {
  const Json paragraph = {
      {"paragraph", "p"},
      {"questions",
       {{{"idx", 0}, {"question", "q"}, {"answers", {{{"text", "a"}, {"label", 1}}, {{"text", "b"}, {"label", 0}}}}},
        {{"idx", 1}, {"question", "r"}, {"answers", {{{"text", "a"}, {"label", 1}}}}}}}};
  const auto values = scores("superglue_multirc", {paragraph}, {"True", "True", "True"});
  EXPECT_NEAR(values.at("f1"), 80, 1e-9);
  EXPECT_NEAR(values.at("exact_match"), 50, 1e-9);
}

TEST(Score, CountsARecordQueryOnce) {
  const Json query = {
      {"query", "@placeholder"}, {"entities", {"x"}}, {"passage", "p"}, {"answers", {"x y", "z"}}, {"idx", 1}};
  Json other = query;
  other["idx"] = 2;
  other["answers"] = {"d"};
  const auto values = scores("superglue_record", {query, other}, {"x", "ignored", "d"});
  EXPECT_NEAR(values.at("em"), 50, 1e-9);
  EXPECT_NEAR(values.at("f1"), 100 * (2.0 / 3 + 1) / 2, 1e-9);
}

TEST(Score, TakesSquadAnswersPaddedAndAsPublished) {
  const Json row = {{"context", "c"}, {"question", "q"}, {"answers", {"8.0 Ms"}}};
  EXPECT_EQ(scores("squad", {row}, {"8 . 0 Ms"}).at("em"), 100);
  EXPECT_EQ(scores("squad", {row}, {"8.0 Ms"}).at("em"), 100);
  EXPECT_EQ(scores("squad", {row}, {""}).at("f1"), 0);
}

TEST(Score, WscAsksForTheReferentOnlyIfItIsRight) {
  Json right = {{"text", "Tom saw that he won ."},
                {"span1_text", "Tom"},
                {"span2_text", "he"},
                {"span1_index", 0},
                {"span2_index", 3},
                {"label", 1}};
  Json wrong = right;
  wrong["label"] = 0;
  EXPECT_EQ(scores("superglue_wsc", {right, wrong}, {"tom", "Bob"}).at("accuracy"), 100);
  EXPECT_EQ(scores("superglue_wsc", {right, wrong}, {"Bob", "Tom"}).at("accuracy"), 0);
  EXPECT_EQ(scores("superglue_wsc", {right, wrong}, {"", ""}).at("accuracy"), 0);
}

TEST(Score, ParityOfPairs) {
  std::vector<Json> rows;
  for (int idx = 0; idx < 4; ++idx)
    rows.push_back({{"premise", "p"}, {"hypothesis", "h"}, {"label", "entailment"}, {"idx", idx}});
  const auto values = scores("superglue_axg", rows, {"entailment", "entailment", "entailment", "not_entailment"});
  EXPECT_EQ(values.at("gender_parity"), 50);
  EXPECT_EQ(values.at("accuracy"), 75);
}

TEST(Score, ChoicesAndSummariesAndTranslations) {
  const Json arc = {{"question", "q"}, {"choices", {"fog", "rain"}}, {"answer", 1}};
  EXPECT_EQ(scores("arc_easy", {arc, arc}, {"rain", "snow"}).at("accuracy"), 50);
  const auto rouge =
      scores("scitldr", {{{"document", "d"}, {"summaries", {"a cat sat", "dogs ran"}}}}, {"the dog ran"});
  EXPECT_NEAR(rouge.at("rouge1"), 80, 1e-9);  // dogs and dog have one stem, and the second summary is the nearer one
  EXPECT_EQ(rouge.size(), 4u);
  EXPECT_THROW(score(find_task("scitldr"), {}, {}), Error);
}

TEST(Score, AverageTakesEachTaskOnce) { EXPECT_EQ(mean_of({{"f1", 50}, {"accuracy", 100}}), 75); }

}  // namespace
}  // namespace switchyard
