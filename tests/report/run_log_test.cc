#include "report/run_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "report/run_folder.h"
#include "report/summary.h"

namespace switchyard {
namespace {

using testing::HasSubstr;

TEST(ReadRuns, ReadsScalarsLayersAndTrainingTime) {
  const RunFolder scratch;
  const auto folder = scratch.put(
      "a/metrics.jsonl",
      R"({"step":0,"eval_loss":9})"
      "\n"
      R"({"step":5,"loss":4,"step_seconds":2,"dropped_fraction":{"decoder.1":0.5,"encoder.11":0.25,"encoder.3":0}})"
      "\n"
      R"({"step":10,"loss":null,"step_seconds":3,"expert_load":{"encoder.3":[0.75,0.25]}})"
      "\n"
      R"({"step":10,"eval_loss":3.5})"
      "\n"
      R"({"step":15,"lo)");
  scratch.put("a/run.toml", "[model]\npreset = \"switch-mini-8\"\n");
  const auto input = read_runs({folder});
  ASSERT_EQ(input.runs.size(), 1u);
  const auto& run = input.runs[0];
  EXPECT_EQ(run.name, "a");
  EXPECT_EQ(run.config.at("model").at("preset"), "switch-mini-8");
  ASSERT_EQ(run.scalar("loss").size(), 1u);        // null and the torn line are left out
  EXPECT_EQ(run.scalar("loss")[0].seconds, 10.0);  // a line every five steps, 2 s a step
  ASSERT_EQ(run.scalar("eval_loss").size(), 2u);
  EXPECT_EQ(run.scalar("eval_loss")[0].seconds, 0.0);
  EXPECT_EQ(run.scalar("eval_loss")[1].seconds, 25.0);
  EXPECT_EQ(run.scalar("eval_loss")[1].value, 3.5);
  EXPECT_TRUE(run.scalar("absent").empty());
  ASSERT_EQ(run.layers.size(), 3u);
  EXPECT_EQ(run.layers[0].name, "encoder.3");
  EXPECT_EQ(run.layers[1].name, "encoder.11");
  EXPECT_EQ(run.layers[2].name, "decoder.1");
  EXPECT_EQ(run.layers[2].number("dropped_fraction").at(0).value, 0.5);
  EXPECT_EQ(run.layers[0].load.loads, (std::vector<std::vector<double>>{{0.75, 0.25}}));
}

// A run that went on under a later version has both names in one log; they are one series.
TEST(ReadRuns, LossesOfLayersUnderTheirEarlierNames) {
  const RunFolder scratch;
  const auto folder =
      scratch.put("a/metrics.jsonl", R"({"step":1,"load_balance":{"encoder.1":1.5},"router_z":{"encoder.1":2}})"
                                     "\n"
                                     R"({"step":2,"layer_load_balance_loss":{"encoder.1":1.25}})"
                                     "\n");
  const auto layer = read_runs({folder}).runs.at(0).layers.at(0);
  ASSERT_EQ(layer.number("layer_load_balance_loss").size(), 2u);
  EXPECT_EQ(layer.number("layer_load_balance_loss")[0].value, 1.5);
  EXPECT_EQ(layer.number("layer_load_balance_loss")[1].value, 1.25);
  EXPECT_EQ(layer.number("layer_router_z_loss").at(0).value, 2.0);
  EXPECT_TRUE(layer.number("load_balance").empty());
}

// Enough lines that spans are joined several times: no line may be lost, none counted twice.
TEST(ReadRuns, AveragesTheLoadOfLongRuns) {
  const RunFolder scratch;
  std::string text;
  constexpr int kLines = 5000;
  for (int step = 1; step <= kLines; ++step)
    text += join("{\"step\":", step, ",\"expert_load\":{\"encoder.1\":[", step, ",", 2 * step, "]}}\n");
  const auto input = read_runs({scratch.put("a/metrics.jsonl", text)});
  const auto& history = input.runs.at(0).layers.at(0).load;
  ASSERT_EQ(history.loads.size(), history.last_step.size());
  EXPECT_GT(history.loads.size(), 100u);
  EXPECT_LE(history.loads.size(), 240u);
  EXPECT_EQ(history.last_step.back(), kLines);
  double first_step = 1;
  for (size_t span = 0; span < history.loads.size(); ++span) {
    const double mean_step = 0.5 * (first_step + history.last_step[span]);
    EXPECT_EQ(history.loads[span], (std::vector<double>{mean_step, 2 * mean_step})) << span;
    first_step = history.last_step[span] + 1;
  }
}

TEST(ReadRuns, FindsTheRunsAndSamplesOfAComparison) {
  const RunFolder scratch;
  scratch.put("twins/sparse/metrics.jsonl", "{\"step\":1,\"loss\":2}\n");
  scratch.put("twins/dense/metrics.jsonl", "{\"step\":1,\"loss\":3}\n");
  scratch.put("twins/.cache/notes.txt", "");
  const auto twins = scratch.put(
      "twins/comparison.json",
      R"({"runs":[],"samples":[{"text":"a b c","prompt":"a <extra_id_0> c","filled":{"sparse":"a x c","dense":"a y c"}}]})");
  const auto other = scratch.put("sparse/metrics.jsonl", "{\"step\":1,\"loss\":2}\n");
  const auto input = read_runs({twins, other});
  ASSERT_EQ(input.runs.size(), 3u);
  EXPECT_EQ(input.runs[0].name, "dense");
  EXPECT_EQ(input.runs[1].name, "sparse");
  EXPECT_EQ(input.runs[2].name, "sparse (2)");
  ASSERT_EQ(input.samples.size(), 1u);
  EXPECT_EQ(input.samples[0].filled,
            (std::vector<std::pair<std::string, std::string>>{{"sparse", "a x c"}, {"dense", "a y c"}}));
}

TEST(ReadRuns, SaysWhatIsWrong) {
  const RunFolder scratch;
  const auto error_of = [](const std::filesystem::path& folder) -> std::string {
    try {
      read_runs({folder});
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_THAT(error_of(scratch.path() / "absent"), HasSubstr("no such folder"));
  EXPECT_THAT(error_of(scratch.path()), HasSubstr("holds no metrics.jsonl"));
  EXPECT_THAT(error_of(scratch.put("a/metrics.jsonl", "{\"step\":1}\nnonsense\n")), HasSubstr("metrics.jsonl:2"));
  EXPECT_THAT(error_of(scratch.put("b/metrics.jsonl", "{\"loss\":1}\n")), HasSubstr("\"step\""));
  scratch.put("c/metrics.jsonl", "{\"step\":1}\n");
  EXPECT_THAT(error_of(scratch.put("c/samples.json", "[{\"prompt\":3}]")), HasSubstr("samples.json"));
}

RunLog run_with_evaluations(const std::string& name, const LogSeries& evaluations) {
  RunLog run;
  run.name = name;
  run.scalars["eval_loss"] = evaluations;
  return run;
}

TEST(EqualTerms, InterpolatesBetweenEvaluations) {
  const std::vector<RunLog> runs = {run_with_evaluations("quick", {{0, 0, 10}, {100, 50, 4}, {200, 100, 2}}),
                                    run_with_evaluations("slow", {{0, 0, 10}, {100, 80, 6}, {150, 120, 5}})};
  const auto terms = compare_on_equal_terms(runs);
  ASSERT_TRUE(terms.has_value());
  EXPECT_EQ(terms->step, 150);
  EXPECT_EQ(terms->seconds, 100);
  EXPECT_EQ(terms->loss, 5);
  EXPECT_DOUBLE_EQ(terms->rows[0].loss_at_step, 3.0);
  EXPECT_DOUBLE_EQ(terms->rows[0].loss_at_seconds, 2.0);
  EXPECT_DOUBLE_EQ(terms->rows[0].steps_to_loss, 100 * 5.0 / 6.0);
  EXPECT_DOUBLE_EQ(terms->rows[0].seconds_to_loss, 50 * 5.0 / 6.0);
  EXPECT_DOUBLE_EQ(terms->rows[1].loss_at_step, 5.0);
  EXPECT_DOUBLE_EQ(terms->rows[1].loss_at_seconds, 5.5);
  EXPECT_DOUBLE_EQ(terms->rows[1].steps_to_loss, 150);
  EXPECT_DOUBLE_EQ(terms->rows[1].seconds_to_loss, 120);
  EXPECT_FALSE(compare_on_equal_terms({runs[0]}).has_value());
  EXPECT_FALSE(compare_on_equal_terms({runs[0], run_with_evaluations("none", {})}).has_value());
}

TEST(Summary, TakesTheEndOfTheRun) {
  RunLog run = run_with_evaluations("a", {{0, 0, 9}, {20, 10, 3}, {40, 20, 3.5}});
  for (int step = 1; step <= 40; ++step) {
    run.scalars["cross_entropy"].push_back({static_cast<double>(step), step * 0.5, step <= 38 ? 100.0 : 4.0 + step});
    run.scalars["tokens_per_second"].push_back({static_cast<double>(step), step * 0.5, step == 1 ? 1e9 : 500.0});
  }
  run.layers = {{.name = "encoder.1", .numbers = {{"dropped_fraction", {{40, 20, 0.1}}}}, .load = {}},
                {.name = "decoder.1", .numbers = {{"dropped_fraction", {{40, 20, 0.3}}}}, .load = {}}};
  const auto summary = summarize(run);
  EXPECT_EQ(summary.steps, 40);
  EXPECT_EQ(summary.seconds, 20);
  EXPECT_EQ(summary.train_loss, 43.5);  // steps 39 and 40
  EXPECT_EQ(summary.tokens_per_second, 500.0);
  EXPECT_EQ(summary.final_eval_loss, 3.5);
  EXPECT_EQ(summary.best_eval_loss, 3.0);
  EXPECT_DOUBLE_EQ(*summary.dropped_fraction, 0.2);
}

}  // namespace
}  // namespace switchyard
