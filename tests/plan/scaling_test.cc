#include "plan/scaling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "plan/models.h"
#include "testing/scratch_folder.h"

namespace switchyard {
namespace {

using testing::ElementsAre;

TEST(Unevenness, IsTheBusiestRankOverTheMeanOfWhatCapacityKeeps) {
  auto workload = small_workload(/*sparse=*/true);
  const MeasuredStep step{.loads = {{0.5, 0.25, 0.125, 0.125}}};
  workload.model.routing.drop_tokens = false;
  EXPECT_DOUBLE_EQ(unevenness_of(step, workload, 2).imbalance, 0.75 / 0.5);
  EXPECT_DOUBLE_EQ(unevenness_of(step, workload, 4).imbalance, 2.0);
  EXPECT_DOUBLE_EQ(unevenness_of(step, workload, 1).imbalance, 1.0);
  EXPECT_DOUBLE_EQ(unevenness_of(step, workload, 8).imbalance, 2.0) << "two ranks an expert share its rows";
  EXPECT_DOUBLE_EQ(unevenness_of(step, workload, 2).dropped, 0.0);
  workload.model.routing.drop_tokens = true;  // factor 1.25: an expert takes at most 0.3125 of all
  const auto kept = unevenness_of(step, workload, 2);
  EXPECT_DOUBLE_EQ(kept.dropped, 0.1875);
  EXPECT_DOUBLE_EQ(kept.imbalance, (0.3125 + 0.25) / (0.8125 / 2));
}

TEST(Unevenness, RepeatsLayersAndDrawsExpertsThatWereNotMeasured) {
  auto workload = small_workload(/*sparse=*/true);
  workload.model.routing.drop_tokens = false;
  const std::vector<double> uneven = {0.7, 0.1, 0.1, 0.1}, even = {0.25, 0.25, 0.25, 0.25};
  EXPECT_DOUBLE_EQ(unevenness_of({.loads = {uneven, even}}, workload, 4).imbalance, (2.8 + 1.0) / 2);
  EXPECT_DOUBLE_EQ(unevenness_of({.loads = {uneven}}, workload, 4).imbalance, 2.8);
  EXPECT_DOUBLE_EQ(unevenness_of({}, workload, 4).imbalance, 1.0);
  workload.model.routing.num_experts = 128;
  EXPECT_DOUBLE_EQ(unevenness_of({.loads = {even}}, workload, 16).imbalance, 1.0);
  // Ranks of eight experts drawn from the four: each has its own sum.
  const double drawn = unevenness_of({.loads = {uneven}}, workload, 16).imbalance;
  EXPECT_GT(drawn, 1.1);
  EXPECT_LT(drawn, 2.8);
}

TEST(DeviceCounts, DoubleFromTheFirst) {
  EXPECT_THAT(read_device_counts("8..64"), ElementsAre(8, 16, 32, 64));
  EXPECT_THAT(read_device_counts("3..13"), ElementsAre(3, 6, 12));
  for (const char* wrong : {"8", "8..", "8..4", "0..8", "8..16x", "8-16", ""})
    EXPECT_THROW(read_device_counts(wrong), Error) << wrong;
}

TEST(Scaling, KeepsItsPaceWhereNothingIsSentAndFallsWithTheNetwork) {
  auto workload = small_workload(/*sparse=*/true);
  auto cluster = known_cluster("h100", 1);
  cluster.intra_bandwidth = cluster.inter_bandwidth = 1e30;
  cluster.intra_latency = cluster.inter_latency = 0;
  const std::vector<int64_t> counts = {1, 2, 4, 8};
  const auto free = study_scaling(workload, cluster, counts, {});
  ASSERT_EQ(free.weak.size(), 4u);
  for (size_t n = 0; n < 4; ++n) {
    EXPECT_EQ(free.weak[n].batch_size, 8 << n);
    EXPECT_EQ(free.strong[n].batch_size, 8);
    EXPECT_EQ(free.weak[n].devices, counts[n]);
    EXPECT_GT(free.weak[n].efficiency, 0.99);
  }
  EXPECT_EQ(free.weak[0].efficiency, 1.0);
  cluster.intra_bandwidth = 1e6;
  const auto slow = study_scaling(workload, cluster, counts, {});
  EXPECT_EQ(slow.weak[0].seconds, free.weak[0].seconds) << "one device";
  EXPECT_LT(slow.weak[3].efficiency, 0.1);
  EXPECT_LT(slow.strong[3].efficiency, slow.weak[3].efficiency) << "less to compute for the same update";
}

TEST(Scaling, ReplaysMeasuredSpeedAndRouting) {
  auto workload = small_workload(/*sparse=*/true);
  workload.model.routing.drop_tokens = false;
  auto cluster = known_cluster("h100", 4);
  cluster.memory_bandwidth = 1e30;
  workload.model.d_ff = 4096;
  const MeasuredStep balanced{.efficiency = 0.5, .loads = {{0.25, 0.25, 0.25, 0.25}}};
  auto slow = balanced, uneven = balanced;
  slow.efficiency = 0.25;
  uneven.loads = {{0.7, 0.1, 0.1, 0.1}};
  const auto time_of = [&](const std::vector<MeasuredStep>& steps) {
    return study_scaling(workload, cluster, {4}, steps).weak.front();
  };
  const auto usual = time_of({balanced});
  EXPECT_DOUBLE_EQ(time_of({slow}).time.compute, 2 * usual.time.compute);
  EXPECT_DOUBLE_EQ(time_of({balanced, slow}).time.compute, 1.5 * usual.time.compute);
  EXPECT_EQ(usual.waiting, 0);
  const auto& layout = usual.plan.layout;
  if (layout.expert > 1) {
    EXPECT_GT(time_of({uneven}).waiting, 0);
  }
  EXPECT_GE(time_of({balanced, slow}).slowest_seconds, time_of({balanced, slow}).seconds);
}

TEST(MeasuredSteps, AreReadFromARunsMetrics) {
  const test::ScratchFolder scratch;
  const auto path = scratch.path() / "metrics.jsonl";
  const auto put = [&](const std::string& text) { std::ofstream(path) << text; };
  std::string text;
  for (int step = 1; step <= 20; ++step)
    text += join("{\"step\":", step, ",\"step_seconds\":0.1,\"model_flops_utilization\":", 0.01 * step,
                 ",\"expert_load\":{\"encoder.1\":[0.75,0.25]}}\n");
  put(text + "{\"step\":20,\"eval_loss\":1}\n{\"step\":21,\"step_sec");
  const auto steps = read_measured_steps(path.string(), 6);
  ASSERT_EQ(steps.size(), 6u);
  EXPECT_DOUBLE_EQ(steps[0].efficiency, 0.03) << "two warm-up steps are left out";
  EXPECT_DOUBLE_EQ(steps[5].efficiency, 0.18);
  EXPECT_THAT(steps[3].loads.at(0), ElementsAre(0.75, 0.25));
  put("{\"step\":1,\"step_seconds\":0.1,\"expert_load\":{\"encoder.1\":[\"a\"]}}\n");
  EXPECT_THROW(read_measured_steps(path.string(), 6), Error);
  put("");
  EXPECT_THROW(read_measured_steps(path.string(), 6), Error);
}

}  // namespace
}  // namespace switchyard
