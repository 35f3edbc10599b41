#include <gtest/gtest.h>

#include "base/error.h"
#include "tasks/examples.h"
#include "tasks/predictions.h"
#include "tasks/records.h"
#include "tasks/scratch_folder.h"
#include "tasks/split_files.h"

namespace switchyard {
namespace {

constexpr const char* kReviews = R"toml([task]
inputs = "review: {text}"
label = "stars"
labels = ["bad", "good"]
metrics = ["accuracy"]
[splits]
train = ["2019.tsv", "2020"]
)toml";

Task reviews(const std::string& more = "") {
  return parse_task(std::string(kReviews).insert(7, more), "reviews", "reviews.toml");
}

std::vector<std::string> inputs_of(const TaskExamples& read) {
  std::vector<std::string> inputs;
  for (const auto& example : read.examples) inputs.push_back(example.inputs + " -> " + example.targets);
  return inputs;
}

using Texts = std::vector<std::string>;

TEST(Files, TablesAndJsonLinesMakeTheSameExamples) {
  const ScratchFolder folder;
  folder.write("2019.tsv", "text\tstars\nfine \"thing\"\t1\n");
  folder.write("2020.csv", "\xef\xbb\xbfstars,text\r\nbad,\"not \"\"it\"\",\nbroken\"\r\n0,dull\r\n");
  folder.write("dev.jsonl", "{\"text\": \"fine\", \"stars\": \"good\"}\n\n{\"text\": 7, \"stars\": true}\n");
  EXPECT_EQ(inputs_of(read_examples(reviews(), folder.path(), "train")),
            (Texts{"review: fine \"thing\" -> good", "review: not \"it\",\nbroken -> bad", "review: dull -> bad"}));
  EXPECT_EQ(inputs_of(read_examples(reviews(), folder.path(), "validation")),
            (Texts{"review: fine -> good", "review: 7 -> good"}));
}

TEST(Files, TablesWithoutNamesTakeThoseOfTheTask) {
  const ScratchFolder folder;
  folder.write("test.tsv", "1\tfine\n0\tdull\n");
  EXPECT_EQ(inputs_of(read_examples(reviews("columns = [\"stars\", \"text\"]\n"), folder.path(), "test")),
            (Texts{"review: fine -> good", "review: dull -> bad"}));
}

TEST(Files, BadRowsAreCountedAndNamed) {
  const ScratchFolder folder;
  const auto path = folder
                        .write("test.jsonl",
                               "{\"text\": \"fine\", \"stars\": 1}\n{\"stars\": 1}\n{\"text\": [1], \"stars\": 1}\n"
                               "{\"text\": \"x\", \"stars\": 9}\n{\"text\": \" \\u00a0\", \"stars\": 1}\nnot json\n"
                               "{\"text\": \"x\", \"stars\": \"goood\"}\n[1]\n{\"text\": \"\xff\", \"stars\": 1}\n"
                               "{\"text\": \"dull\", \"stars\": 0}\n{\"text\": \"x\", \"stars\": 1.5}\n")
                        .string();
  const auto read = read_examples(reviews(), folder.path(), "test", {.bad_rows = BadRows::kSkip});
  EXPECT_EQ(inputs_of(read), (Texts{"review: fine -> good", "review: dull -> bad"}));
  EXPECT_EQ(read.examples[1].place, path + ":10");
  ASSERT_EQ(read.bad_rows.size(), 9u);
  const std::pair<int, const char*> problems[] = {{2, "no field \"text\" (there are stars)"},
                                                  {3, "field \"text\" is array, expected text"},
                                                  {4, "label 9 is none of 0 ... 1 (bad, good)"},
                                                  {5, "field \"text\" is empty"},
                                                  {6, "not JSON"},
                                                  {7, "label \"goood\" is none of 0 ... 1 (bad, good)"},
                                                  {8, "expected a JSON object"},
                                                  {9, "not UTF-8"},
                                                  {11, "field \"stars\" is number, expected a class"}};
  for (size_t n = 0; n < read.bad_rows.size(); ++n) {
    EXPECT_EQ(read.bad_rows[n].place, path + ":" + std::to_string(problems[n].first));
    EXPECT_TRUE(read.bad_rows[n].problem.starts_with(problems[n].second)) << read.bad_rows[n].problem;
  }
  const auto message = message_of([&] { read_examples(reviews(), folder.path(), "test"); });
  EXPECT_NE(message.find("9 of 11 rows are bad"), std::string::npos) << message;
  EXPECT_NE(message.find(path + ":2: no field \"text\""), std::string::npos) << message;
}

TEST(Files, ARowOfAnotherWidthIsBad) {
  const ScratchFolder folder;
  folder.write("test.tsv", "text\tstars\nfine\t1\nfine\n");
  const auto read = read_examples(reviews(), folder.path(), "test", {.bad_rows = BadRows::kSkip});
  ASSERT_EQ(read.bad_rows.size(), 1u);
  EXPECT_EQ(read.bad_rows[0].problem, "a row of 1 cells, expected 2");
}

TEST(Files, OneOfManyQuestionsMayBeBad) {
  const ScratchFolder folder;
  folder.write(
      "dev.jsonl",
      R"({"context": "It is so.", "qas": [{"question": "Is it?", "answers": ["yes"]}, {"question": "Why?", "answers": []}]})");
  const auto read = read_examples(find_task("squad"), folder.path(), "dev", {.bad_rows = BadRows::kSkip});
  EXPECT_EQ(read.examples.size(), 1u);
  ASSERT_EQ(read.bad_rows.size(), 1u);
  EXPECT_TRUE(read.bad_rows[0].place.ends_with("dev.jsonl:1, row 2")) << read.bad_rows[0].place;
  EXPECT_EQ(read.bad_rows[0].problem, "field \"answers\" is an empty list");
}

TEST(Files, ASplitThatIsNotThereNamesThoseThatAre) {
  const ScratchFolder folder;
  folder.write("reviews/dev.jsonl", "{}");
  EXPECT_NE(message_of([&] { find_split(reviews(), folder.path(), "test"); }).find("there are dev, train"),
            std::string::npos);
  EXPECT_NE(message_of([&] { find_split(reviews(), folder.path(), "train"); }).find("2019.tsv, which is no file"),
            std::string::npos);
  EXPECT_NE(message_of([&] { find_split(reviews(), folder.path() / "absent", "dev"); }).find("no such folder"),
            std::string::npos);
  folder.write("reviews/dev.tsv", "");
  EXPECT_NE(message_of([&] { find_split(reviews(), folder.path(), "dev"); }).find("keep one file a split"),
            std::string::npos);
}

TEST(Files, LanguagesAreFilesAndSplitsMayBeRows) {
  const ScratchFolder folder;
  for (const char* language : {"et", "ta"})
    folder.write(
        std::string("xcopa/") + language + ".jsonl",
        R"({"split": "dev", "premise": "p", "choice1": "a", "choice2": "b", "question": "cause", "label": 0})"
        "\n"
        R"({"split": "test", "premise": "q", "choice1": "a", "choice2": "b", "question": "effect", "label": 1})");
  const auto count = [&](const char* task, const char* split) {
    return read_examples(find_task(task), folder.path(), split).examples.size();
  };
  EXPECT_EQ(count("xcopa", "et"), 2u);
  EXPECT_EQ(count("xcopa", "validation"), 2u);
  EXPECT_EQ(count("xcopa.et", "test"), 1u);
  EXPECT_EQ(read_examples(find_task("xcopa"), folder.path(), "test").examples[1].language, "ta");
  EXPECT_THROW(count("xcopa.de", "test"), Error);
  EXPECT_EQ(default_eval_splits(find_task("xcopa"), folder.path()), (Texts{"validation"}));
}

TEST(Files, AlignedTextMustHaveTheSameLines) {
  const ScratchFolder folder;
  folder.write("languages.tsv", "code\tname\nen\tEnglish\nde\tGerman\n");
  folder.write("en.jsonl",
               "{\"id\": \"ntrex/1\", \"text\": \"One.\\nTwo.\"}\n{\"id\": \"ntrex/2\", \"text\": \"Three.\"}\n"
               "{\"id\": \"flores/dev/1\", \"text\": \"Four.\"}\n");
  folder.write(
      "de.jsonl",
      "{\"id\": \"ntrex/2#x\", \"text\": \"Drei.\\nVier.\"}\n{\"id\": \"ntrex/1\", \"text\": \"Eins.\\nZwei.\"}\n");
  const auto task = find_task("translate_en_de");
  const auto read = read_examples(task, folder.path(), "ntrex", {.bad_rows = BadRows::kSkip});
  EXPECT_EQ(inputs_of(read),
            (Texts{"translate English to German: One. -> Eins.", "translate English to German: Two. -> Zwei."}));
  ASSERT_EQ(read.bad_rows.size(), 1u);
  EXPECT_NE(read.bad_rows[0].problem.find("has 1 lines, and 2 at"), std::string::npos);
  EXPECT_EQ(default_eval_splits(task, folder.path()), (Texts{"flores_devtest"}));
  EXPECT_NE(message_of([&] { read_examples(task, folder.path(), "flores_dev"); }).find("no document"),
            std::string::npos);
  EXPECT_NE(
      message_of([&] { read_examples(find_task("translate_en_fr"), folder.path(), "ntrex"); }).find("no fr.jsonl"),
      std::string::npos);
}

TEST(Files, PredictionsAreOneALine) {
  const ScratchFolder folder;
  const auto path = folder.write("out.jsonl", "{\"prediction\": \"a\", \"score\": 1}\n{\"prediction\": \"\"}\n");
  EXPECT_EQ(read_predictions(path, 2), (Texts{"a", ""}));
  EXPECT_NE(message_of([&] { read_predictions(path, 3); }).find("2 predictions for 3 examples"), std::string::npos);
  const auto bad = folder.write("bad.jsonl", "{\"prediction\": \"a\"}\n{\"text\": \"a\"}\n");
  EXPECT_NE(message_of([&] { read_predictions(bad, 2); }).find("bad.jsonl:2: expected an object"), std::string::npos);
}

}  // namespace
}  // namespace switchyard
