#include "report/parts_section.h"

#include <gmock/gmock.h>

#include "report/bars.h"
#include "report/page.h"
#include "report/run_folder.h"
#include "report/summary.h"

namespace switchyard {
namespace {

using testing::HasSubstr;
using testing::Not;

// Losses that fall by a slope a step from 6.
std::string evaluations(double slope_of_german, double slope_of_zulu) {
  std::string text;
  for (int step = 10; step <= 100; step += 10)
    text += join("{\"step\":", step, ",\"eval_loss\":5,\"eval_loss_de\":", 6.0 - slope_of_german * step,
                 ",\"eval_loss_zu\":", 6.0 - slope_of_zulu * step, "}\n");
  return text;
}

std::vector<RunLog> two_seeds(const RunFolder& scratch) {
  scratch.put("dense-0/metrics.jsonl", evaluations(0.01, 0.02));
  scratch.put("dense-1/metrics.jsonl", evaluations(0.01, 0.02));
  scratch.put("sparse-0/metrics.jsonl", evaluations(0.015, 0.01));
  scratch.put("sparse-1/metrics.jsonl", evaluations(0.025, 0.01) + "{\"step\":110,\"eval_loss_de\":1}\n");
  for (const std::string seed : {"0", "1"}) {
    scratch.put("dense-" + seed + "/run.toml", "[model]\nnum_experts = 0\n");
    scratch.put("sparse-" + seed + "/run.toml", "[model]\nnum_experts = 8\n");
  }
  return read_runs({scratch.path()}).runs;
}

TEST(CompareParts, TakesMeansOverRunsAndStepsToTheSameLoss) {
  const RunFolder scratch;
  const auto parts = compare_parts(two_seeds(scratch));
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].name, "de");
  EXPECT_NEAR(parts[0].dense_loss, 5.0, 1e-9);
  EXPECT_NEAR(parts[0].sparse_loss, 4.0, 1e-9) << "at step 100, the last that all runs have";
  EXPECT_NEAR(parts[0].dense_steps, 100.0, 1e-9);
  EXPECT_NEAR(parts[0].speed_up(), 2.0, 1e-9);
  EXPECT_EQ(parts[1].name, "zu");
  EXPECT_NEAR(parts[1].improvement(), -1.0, 1e-9);
  EXPECT_NEAR(parts[1].speed_up(), 0.5, 1e-9) << "where the dense model is ahead, it has the sparse one's loss sooner";
}

TEST(CompareParts, WantsBothKindsOfRuns) {
  const RunFolder scratch;
  auto runs = two_seeds(scratch);
  runs.resize(2);
  EXPECT_TRUE(compare_parts(runs).empty());
  EXPECT_EQ(draw_parts(runs), "");
  EXPECT_EQ(parts_to_json(runs), Json::array());
}

TEST(PartsSection, IsOnThePage) {
  const RunFolder scratch;
  const auto runs = two_seeds(scratch);
  const auto page = make_page({.runs = runs, .samples = {}, .scaling = {}, .ladders = {}, .studies = {}});
  for (const char* text : {"<h2>By part</h2>", "Of 2 held-out texts the sparse model is better on 1.", ">de</text>",
                           ">zu</text>", "mean speed-up 1.25x", ">0.5x</text>"})
    EXPECT_THAT(page, HasSubstr(text));
  EXPECT_NEAR(parts_to_json(runs)[0].at("speed_up").get<double>(), 2.0, 1e-9);
}

TEST(Bars, HangFromZeroAndAreEscaped) {
  const auto svg =
      draw_bars({.title = "<t>",
                 .x_label = "x",
                 .y_label = "y",
                 .bars = {{.label = "a&b", .about = "", .value = 1.0}, {.label = "c", .about = "", .value = -1.0}}});
  EXPECT_THAT(svg, HasSubstr("a&amp;b"));
  EXPECT_THAT(svg, Not(HasSubstr("<t>")));
  EXPECT_EQ(svg.find("height=-"), std::string::npos);
  EXPECT_EQ(draw_bars({.title = "t", .x_label = "", .y_label = "", .bars = {}}), "");
}

// Names of a mixture's parts are no layers.
TEST(RunLog, PartsAreNoLayers) {
  const RunFolder scratch;
  const auto run = scratch.put("run/metrics.jsonl",
                               "{\"step\":1,\"part_loss\":{\"de\":5},\"dropped_fraction\":{\"encoder.1\":0.5}}\n");
  const auto log = read_runs({run}).runs.front();
  ASSERT_EQ(log.layers.size(), 1u);
  EXPECT_EQ(log.layers.front().name, "encoder.1");
}

}  // namespace
}  // namespace switchyard
