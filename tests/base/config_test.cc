#include "base/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace switchyard {

enum class Pace { kWalk, kRun };
template <>
inline constexpr auto enum_words<Pace> = std::to_array<const char*>({"walk", "run"});

namespace {

using testing::HasSubstr;

struct Example {
  int64_t steps = 3;
  double rate = 0.5;
  bool fast = false;
  std::string name = "plain";
  std::vector<int64_t> sizes;
  Pace pace = Pace::kWalk;
  template <class Self, class Field>
  static void visit(Self& self, Field&& field) {
    field("steps", self.steps, "how many");
    field("rate", self.rate, "how fast");
    field("fast", self.fast, "whether");
    field("name", self.name, "what");
    field("sizes", self.sizes, "which");
    field("pace", self.pace, "in which gait");
  }
};

Example read(const std::string& text, const std::vector<std::string>& settings = {}) {
  auto document = parse_toml(text, "run.toml");
  for (const auto& setting : settings) apply_setting(document, setting);
  Example example;
  read_section(example, document, "part");
  return example;
}

std::string refusal(const std::string& text, const std::vector<std::string>& settings = {}) {
  try {
    read(text, settings);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Config, ReadsEveryTypeAndKeepsDefaults) {
  const auto example = read("[part]\nsteps = 7\nfast = true\nsizes = [1, 2]\nname = \"a\\\"b\"\n");
  EXPECT_EQ(example.steps, 7);
  EXPECT_EQ(example.rate, 0.5);
  EXPECT_TRUE(example.fast);
  EXPECT_EQ(example.name, "a\"b");
  EXPECT_EQ(example.sizes, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(read("[part]\nrate = 2\n").rate, 2.0);  // a whole number is a number
}

TEST(Config, WordsOfAnEnum) {
  EXPECT_EQ(read("[part]\npace = \"run\"\n").pace, Pace::kRun);
  EXPECT_EQ(fields_to_json(read("[part]\npace = \"run\"\n")).at("pace"), "run");
  EXPECT_THAT(describe_fields<Example>("part"), HasSubstr("pace = \"walk\""));
  EXPECT_THAT(refusal("[part]\npace = \"rum\"\n"),
              AllOf(HasSubstr("run.toml:2"), HasSubstr("walk, run"), HasSubstr("did you mean \"run\"")));
  EXPECT_THAT(refusal("[part]\npace = 1\n"), HasSubstr("walk, run"));
  EXPECT_EQ(list_words<Pace>(), "walk or run");
}

TEST(Config, SettingsOverrideAndMayBeBareWords) {
  EXPECT_EQ(read("[part]\nsteps = 7\n", {"part.steps=9"}).steps, 9);
  EXPECT_EQ(read("", {"part.name=word"}).name, "word");
  EXPECT_EQ(read("", {"part.name=a=b.c"}).name, "a=b.c");
  EXPECT_EQ(read("", {"part.sizes=[4, 5]"}).sizes, (std::vector<int64_t>{4, 5}));
}

TEST(Config, RefusalsNamePlaceAndNearestKey) {
  EXPECT_THAT(refusal("[part]\n\nstep = 7\n"), AllOf(HasSubstr("run.toml:3"), HasSubstr("did you mean \"steps\"")));
  EXPECT_THAT(refusal("[part]\nsteps = 1.5\n"), AllOf(HasSubstr("run.toml:2"), HasSubstr("whole number")));
  EXPECT_THAT(refusal("[part]\nsteps = \"7\"\n"), HasSubstr("whole number"));
  EXPECT_THAT(refusal("[part]\nfast = 1\n"), HasSubstr("true or false"));
  EXPECT_THAT(refusal("[part]\nsizes = 3\n"), HasSubstr("list"));
  EXPECT_THAT(refusal("[part]\nsteps = {a = 1}\n"), HasSubstr("run.toml:2"));
  EXPECT_THAT(refusal("steps = 7\n"), HasSubstr("outside a section"));
  EXPECT_THAT(refusal("[part]\nsteps = \n"), HasSubstr("run.toml:2"));
  EXPECT_THAT(refusal("", {"steps=7"}), HasSubstr("section.key=value"));
  EXPECT_THAT(refusal("", {"part.stepz=7"}), HasSubstr("--set"));
}

TEST(Config, WrittenTomlReadsBackTheSame) {
  Example example{.steps = -4,
                  .rate = 1e-30,
                  .fast = true,
                  .name = "tab\tquote\" \xc3\xa9",
                  .sizes = {0, 1LL << 60},
                  .pace = Pace::kRun};
  const auto text = write_toml({{"part", fields_to_json(example)}});
  EXPECT_EQ(fields_to_json(read(text)).dump(), fields_to_json(example).dump());
  example.rate = 0.1;
  EXPECT_EQ(read(write_toml({{"part", fields_to_json(example)}})).rate, 0.1);
}

}  // namespace
}  // namespace switchyard
