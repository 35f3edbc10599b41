#include "report/page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

#include "report/run_folder.h"

namespace switchyard {
namespace {

using testing::HasSubstr;
using testing::Not;

ReportInput sample_input(const RunFolder& scratch) {
  for (const std::string name : {"dense", "sparse"}) {
    std::string text;
    for (int step = 1; step <= 40; ++step) {
      text += join("{\"step\":", step, ",\"cross_entropy\":", 5.0 - 0.05 * step,
                   ",\"learning_rate\":0.01,\"tokens_per_second\":1000,\"step_seconds\":0.5");
      if (name == "sparse")
        text +=
            ",\"dropped_fraction\":{\"encoder.1\":0.1},\"expert_load_entropy\":{\"encoder.1\":0.6},\"expert_load\":{"
            "\"encoder.1\":[0.7,0.3]}";
      text += "}\n";
      if (step % 10 == 0) text += join("{\"step\":", step, ",\"eval_loss\":", 5.5 - 0.05 * step, "}\n");
    }
    scratch.put("twins/" + name + "/metrics.jsonl", text);
    scratch.put("twins/" + name + "/run.toml",
                "[train]\nsteps = 40\nseed = " + std::string(name == "sparse" ? "7\n" : "8\n"));
  }
  scratch.put(
      "twins/comparison.json",
      R"({"samples":[{"text":"The end came soon.","prompt":"The <extra_id_0> came <extra_id_1>.","filled":{"sparse":"The night came late.","dense":"Something else"}}]})");
  return read_runs({scratch.path() / "twins"});
}

TEST(Page, ShowsCurvesRoutingSamplesAndConfiguration) {
  const RunFolder scratch;
  const auto page = make_page(sample_input(scratch));
  for (const char* text : {"Held-out loss against steps", "Held-out loss against time", "Training loss against steps",
                           "Training loss against time", "Learning rate", "Speed", "Dropped tokens by layer",
                           "Expert load, encoder.1", "On equal terms", "train.seed"})
    EXPECT_THAT(page, HasSubstr(text));
  EXPECT_THAT(page, Not(HasSubstr("<td>train.steps")));  // equal in both runs
  EXPECT_THAT(page, HasSubstr("The <mark>night</mark> came <mark>late</mark>."));
  EXPECT_THAT(page, HasSubstr("The <span class=blank>0</span> came <span class=blank>1</span>."));
  EXPECT_THAT(page, HasSubstr("<dd>Something else</dd>"));
}

TEST(Page, AsksNothingOfTheNetwork) {
  const RunFolder scratch;
  auto page = make_page(sample_input(scratch));
  page = std::regex_replace(page, std::regex("http://www.w3.org/2000/svg"), "");  // a name, not an address
  for (const char* text : {"http:", "https:", "//cdn", "src=", "@import", "url(", "<link"})
    EXPECT_THAT(page, Not(HasSubstr(text))) << text;
}

TEST(Page, EscapesWhatComesFromFiles) {
  const std::string hostile = "<script>alert(1)</script>";
  ReportInput input;
  input.runs.emplace_back();
  input.runs[0].name = hostile;
  input.runs[0].scalars["loss"] = {{1, 1, 2}, {2, 2, 1}};
  input.runs[0].layers.push_back(
      {.name = hostile, .numbers = {{"dropped_fraction", {{1, 1, 0.5}, {2, 2, 0.5}}}}, .load = {{1}, {{0.5, 0.5}}}});
  input.runs[0].config["model"]["preset"] = hostile;
  input.samples.push_back(
      {.text = hostile, .prompt = hostile + "<extra_id_" + hostile + ">" + hostile, .filled = {{hostile, hostile}}});
  const auto page = make_page(input);
  EXPECT_THAT(page, Not(HasSubstr("<script>alert")));
  EXPECT_THAT(page, HasSubstr("&lt;script&gt;alert(1)"));
}

TEST(Page, ShowsAScalingStudy) {
  const RunFolder scratch;
  scratch.put("run/metrics.jsonl", "{\"step\":1,\"cross_entropy\":5,\"step_seconds\":0.5}\n");
  scratch.put("run/scaling.json",
              R"({"measured":{"weak":[{"devices":1,"efficiency":1},{"devices":2,"efficiency":0.9}]},
          "simulated":{"model":"switch-<c>","replayed_steps":7,
            "weak":[{"devices":8,"fits":false,"reason":"too large"},
                    {"devices":16,"efficiency":1,"seconds":{"compute":1,"waiting":0.25,"memory":0,"update":0.5,"wire":0.1}},
                    {"devices":32,"efficiency":0.8,"seconds":{"compute":1,"waiting":0.5,"memory":0,"update":0.5,"wire":0.2}}],
            "strong":[]}})");
  const auto page = make_page(read_runs({scratch.path() / "run"}));
  for (const char* text : {"<h2>Scaling</h2>", "Measured, processes of one thread", "Simulated, switch-&lt;c&gt;",
                           "replays 7 steps", "Where a step&#39;s time goes, weak scaling", ">16</text>", ">32</text>"})
    EXPECT_THAT(page, HasSubstr(text)) << text;
  EXPECT_THAT(page, Not(HasSubstr(">8</text>"))) << "nothing fits on 8";
  EXPECT_THAT(page, Not(HasSubstr(">22.63</text>"))) << "no ticks between powers";
  scratch.put("run/scaling.json", R"({"measured":{"weak":[{"devices":"two","efficiency":1}]}})");
  EXPECT_THROW(make_page(read_runs({scratch.path() / "run"})), Error);
}

TEST(Page, TakesARunThatHasOnlyBegun) {
  ReportInput input;
  input.runs.emplace_back();
  input.runs[0].name = "fresh";
  const auto page = make_page(input);
  EXPECT_THAT(page, HasSubstr("fresh"));
  EXPECT_THAT(page, Not(HasSubstr("Learning rate")));
}

}  // namespace
}  // namespace switchyard
