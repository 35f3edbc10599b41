#include "tasks/task.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tasks/scratch_folder.h"
#include "tasks/template.h"

namespace switchyard {
namespace {

constexpr const char* kMinimal =
    "[task]\ninputs = \"review: {text}\"\nlabels = [\"bad\", \"good\"]\nmetrics = [\"accuracy\"]\n";

std::string refusal(const std::string& toml) {
  return message_of([&] { parse_task(toml, "mine", "mine.toml"); });
}

TEST(Task, BuiltInOnesAreAllThere) {
  for (const char* name :
       {"glue_cola",     "glue_sst2",      "glue_stsb",         "glue_mrpc",        "glue_qqp",
        "glue_mnli",     "glue_qnli",      "glue_rte",          "glue_wnli",        "superglue_boolq",
        "superglue_cb",  "superglue_copa", "superglue_multirc", "superglue_record", "superglue_rte",
        "superglue_wic", "superglue_wsc",  "superglue_axb",     "superglue_axg",    "squad",
        "xquad",         "xcopa",          "arc_easy",          "arc_challenge",    "winogrande",
        "anli",          "nq_open",        "web_questions",     "trivia_qa",        "scitldr",
        "xsum",          "cnn_dailymail",  "stsb_multi",        "xquad.de",         "translate_en_de"})
    EXPECT_EQ(find_task(name).name, name);
  for (const auto& name : builtin_task_names()) EXPECT_NO_THROW(find_task(name)) << name;
}

TEST(Task, BenchmarksConsistOfTasks) {
  for (const char* name : {"glue", "superglue"}) {
    const auto* benchmark = find_benchmark(name);
    ASSERT_NE(benchmark, nullptr);
    EXPECT_EQ(benchmark->tasks.size(), 8u);
    for (const auto& task : benchmark->tasks) EXPECT_NO_THROW(find_task(task)) << task;
  }
  EXPECT_EQ(find_benchmark("squad"), nullptr);
}

TEST(Task, OfOnesOwnIsOneFile) {
  const ScratchFolder folder;
  const auto task = find_task(folder.write("reviews.toml", kMinimal).string());
  EXPECT_EQ(task.name, "reviews");
  EXPECT_EQ(task.kind, TargetKind::kLabel);
  EXPECT_EQ(task.folders, (std::vector<std::string>{"reviews"}));
}

TEST(Task, UnknownNamesAreAnsweredWithTheNearest) {
  EXPECT_NE(message_of([] { find_task("glue_sst"); }).find("did you mean \"glue_sst2\"?"), std::string::npos);
  EXPECT_NE(message_of([] { find_task("squad.de"); }).find("has no languages"), std::string::npos);
  EXPECT_NE(message_of([] { find_task("absent.toml"); }).find("absent.toml"), std::string::npos);
}

TEST(Task, FaultsAreNamedWithTheirPlace) {
  EXPECT_EQ(refusal(kMinimal), "");
  EXPECT_NE(refusal(std::string(kMinimal) + "lables = \"x\"\n")
                .find("mine.toml:5: task.lables: a task has no such key (did you mean \"labels\"?)"),
            std::string::npos)
      << refusal(std::string(kMinimal) + "lables = \"x\"\n");
  EXPECT_NE(refusal("[tasks]\nx = 1\n").find("[tasks] is no section"), std::string::npos);
  EXPECT_NE(refusal("[task]\ninputs = \"{a}\"\nmetrics = [\"bleu\"]\n").find("exactly one of labels, answers, number"),
            std::string::npos);
  EXPECT_NE(
      refusal("[task]\ninputs = \"{a}\"\ntargets = \"{b}\"\nmetrics = [\"blue\"]\n").find("(did you mean \"bleu\"?)"),
      std::string::npos);
  EXPECT_NE(refusal("[task]\ninputs = \"{a}\"\ntargets = \"{b}\"\nmetrics = [\"accuracy\"]\n")
                .find("needs labels or choices"),
            std::string::npos);
  EXPECT_NE(refusal("[task]\ninputs = \"{a\"\ntargets = \"{b}\"\nmetrics = [\"bleu\"]\n").find("a lone brace"),
            std::string::npos);
  EXPECT_NE(refusal("[task]\ninputs = \"{a}\"\ntargets = \"{b}\"\nmetrics = []\n").find("needs metrics"),
            std::string::npos);
  EXPECT_NE(refusal("[task]\nrows = \"squat\"\ninputs = \"{a}\"\ntargets = \"{b}\"\nmetrics = [\"bleu\"]\n")
                .find("did you mean \"squad\"?"),
            std::string::npos);
}

TEST(Template, FillsFieldsAndKeepsDoubledBraces) {
  const Template text("{{{a}}} and {b.c}{a}", "here");
  EXPECT_EQ(text.fields(), (std::vector<std::string>{"a", "b.c", "a"}));
  EXPECT_EQ(text.fill([](const std::string& name) { return "<" + name + ">"; }), "{<a>} and <b.c><a>");
  EXPECT_THROW(Template("}", "here"), Error);
  EXPECT_THROW(Template("{}", "here"), Error);
}

}  // namespace
}  // namespace switchyard
