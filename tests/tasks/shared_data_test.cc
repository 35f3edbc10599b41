// Every task of the shared data, read in full: as many examples as its README says. Strings: test_t5_forms.py.
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/error.h"
#include "tasks/examples.h"

namespace switchyard {
namespace {

struct Split {
  const char* task;
  const char* split;
  size_t examples;
};
void PrintTo(const Split& split, std::ostream* out) { *out << split.task << " " << split.split; }

class SharedData : public testing::TestWithParam<Split> {};

TEST_P(SharedData, HasTheExamplesThatItsReadmeSays) {
  const char* data = std::getenv("SWITCHYARD_DATA");
  if (data == nullptr || !std::filesystem::is_directory(std::filesystem::path(data) / "glue_cola"))
    GTEST_SKIP() << "SWITCHYARD_DATA names no folder of task data";
  const auto [name, split, count] = GetParam();
  const auto read = read_examples(find_task(name), data, split);
  EXPECT_EQ(read.examples.size(), count);
}

INSTANTIATE_TEST_SUITE_P(
    Readme, SharedData,
    testing::Values(
        Split{"glue_sst2", "train", 60614}, Split{"glue_sst2", "dev", 6735}, Split{"glue_cola", "train", 8551},
        Split{"glue_cola", "dev", 1043}, Split{"glue_stsb", "train", 5749}, Split{"glue_stsb", "validation", 1500},
        Split{"glue_stsb", "test", 1379}, Split{"glue_wnli", "train", 635}, Split{"glue_wnli", "dev", 71},
        Split{"glue_wnli_simple", "dev", 71}, Split{"stsb_multi", "dev", 15000}, Split{"stsb_multi", "zh", 8628},
        Split{"superglue_boolq", "dev", 3270}, Split{"superglue_boolq", "train", 1000},
        Split{"superglue_cb", "train", 250}, Split{"superglue_cb", "dev", 56}, Split{"superglue_copa", "train", 400},
        Split{"superglue_copa", "dev", 100}, Split{"superglue_multirc", "train", 27243},
        Split{"superglue_multirc", "dev", 4848}, Split{"superglue_rte", "train", 2490},
        Split{"superglue_rte", "dev", 277}, Split{"glue_rte", "dev", 277}, Split{"superglue_wic", "train", 5428},
        Split{"superglue_wic", "dev", 638}, Split{"superglue_wsc", "train", 554}, Split{"superglue_wsc", "dev", 104},
        Split{"superglue_axb", "test", 1104}, Split{"superglue_axg", "test", 356}, Split{"squad", "train", 87599},
        Split{"squad", "dev", 5457}, Split{"xquad", "de", 1190}, Split{"xquad", "validation", 14280},
        Split{"xcopa", "dev", 1100}, Split{"xcopa", "test", 5500}, Split{"xcopa.qu", "test", 500},
        Split{"anli", "test", 1200}, Split{"anli", "train", 514}, Split{"arc_challenge", "train", 1119},
        Split{"arc_challenge", "dev", 299}, Split{"arc_challenge", "test", 1172}, Split{"arc_easy", "train", 2251},
        Split{"arc_easy", "test", 2376}, Split{"winogrande", "dev", 1267}, Split{"web_questions", "train", 3778},
        Split{"web_questions", "test", 2032}, Split{"nq_open", "dev", 3610}, Split{"nq_open", "train", 3569},
        Split{"scitldr", "train", 1992}, Split{"scitldr", "dev", 619}, Split{"scitldr", "test", 618}));

TEST(SharedDataTasks, BoolqWithoutPassagesIsRefused) {
  const char* data = std::getenv("SWITCHYARD_DATA");
  if (data == nullptr || !std::filesystem::is_directory(std::filesystem::path(data) / "glue_cola"))
    GTEST_SKIP() << "SWITCHYARD_DATA names no folder of task data";
  EXPECT_THROW(read_examples(find_task("superglue_boolq"), data, "train_questions_only"), Error);
}

}  // namespace
}  // namespace switchyard
