#include "plan/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/flops.h"
#include "plan/models.h"
#include "testing/errors.h"

namespace switchyard {
namespace {

using test::error_of;
using testing::HasSubstr;

const PlannedLayout& find(const std::vector<PlannedLayout>& plans, const Layout& layout) {
  for (const auto& plan : plans)
    if (plan.layout.data == layout.data && plan.layout.expert == layout.expert && plan.layout.tensor == layout.tensor)
      return plan;
  throw std::runtime_error("no such layout");
}

// Table 9. A figure is met if it is within one unit of its last printed digit: the paper truncates some (124.6 B is
// printed as 124 B) and rounds others.
TEST(Table9, ParametersAndFlopsOfASequence) {
  struct Row {
    const char* preset;
    int64_t num_heads;  // 0: the preset's
    double parameters, parameter_unit, flops, flop_unit;
  };
  const Row rows[] = {{"t5-base", 0, 0.2e9, 0.1e9, 124e9, 1e9},
                      {"t5-large", 0, 0.7e9, 0.1e9, 425e9, 1e9},
                      {"switch-base-128", 0, 7e9, 1e9, 124e9, 1e9},
                      {"switch-large-128", 0, 26e9, 1e9, 425e9, 1e9},
                      {"switch-xxl", 0, 395e9, 1e9, 6.3e12, 0.1e12},
                      // The released model has 30 heads; the printed FLOPs are those of the printed 32.
                      {"switch-c", 32, 1571e9, 1e9, 890e9, 10e9}};
  for (const auto& row : rows) {
    Workload workload;
    workload.model = preset(row.preset);
    if (row.num_heads > 0) workload.model.num_heads = row.num_heads;
    double parameters = 0;
    for (const auto& spec : parameter_specs(workload.model)) parameters += static_cast<double>(spec.numel());
    EXPECT_LT(std::abs(parameters - row.parameters), row.parameter_unit) << row.preset;
    EXPECT_LT(std::abs(forward_flops(workload.model, 512, 114) - row.flops), row.flop_unit) << row.preset;
  }
}

TEST(Planner, ListsEveryFactoringOnceTheFastestFirst) {
  auto workload = small_workload(true);
  const auto plans = plan_layouts(workload, known_cluster("h200", 8));
  EXPECT_EQ(plans.size(), 10u);
  for (size_t n = 1; n < plans.size(); ++n) {
    EXPECT_GE(plans[n - 1].fits, plans[n].fits);
    if (plans[n].fits) {
      EXPECT_LE(plans[n - 1].time.total(), plans[n].time.total());
    }
  }
  for (const auto& plan : plans) {
    EXPECT_EQ(plan.layout.num_ranks(), 8);
    EXPECT_EQ(plan.fits, plan.reason.empty());
    EXPECT_GT(plan.memory.total(), 0);
    EXPECT_GT(plan.time.total(), 0);
  }
}

TEST(Planner, SaysWhyALayoutIsNone) {
  const auto sparse = plan_layouts(small_workload(true), known_cluster("h200", 16));
  EXPECT_THAT(find(sparse, {.data = 16}).reason, HasSubstr("are not 16 equal parts; make the batch a multiple of 16"));
  EXPECT_THAT(find(sparse, {.data = 1, .expert = 8, .tensor = 2}).reason, HasSubstr("expert 8 of 4 experts"));
  EXPECT_THAT(find(sparse, {.data = 2, .expert = 1, .tensor = 8}).reason, HasSubstr("tensor 8 of 4 heads"));
  EXPECT_TRUE(find(sparse, {.data = 1, .expert = 4, .tensor = 4}).fits);
  const auto dense = plan_layouts(small_workload(false), known_cluster("h200", 4));
  EXPECT_THAT(find(dense, {.expert = 4}).reason, HasSubstr("no experts"));
  auto tiny = known_cluster("h200", 2);
  tiny.memory_bytes = 1e5;
  for (const auto& plan : plan_layouts(small_workload(false), tiny))
    if (plan.layout.expert == 1) {
      EXPECT_THAT(plan.reason, HasSubstr("a device, most of it"));
    }
}

TEST(Planner, TakesTheLargestMicroBatchThatFits) {
  Workload workload;
  workload.model = preset("t5-base");
  workload.batch_size = 256;
  auto cluster = known_cluster("h200", 1);
  EXPECT_EQ(plan_layout(workload, cluster, {}).micro_batch, 256);
  cluster.memory_bytes = 24e9;
  const auto plan = plan_layout(workload, cluster, {});
  EXPECT_TRUE(plan.fits);
  EXPECT_LT(plan.micro_batch, 256);
  EXPECT_LE(plan.memory.total(), 24e9);
  workload.micro_batch_size = 256;
  EXPECT_FALSE(plan_layout(workload, cluster, {}).fits);
}

TEST(Planner, PredictsWhatTakesTheTime) {
  Workload workload;
  workload.model = preset("t5-large");
  workload.batch_size = 64;
  auto cluster = known_cluster("h100", 8);
  const auto fast = plan_layout(workload, cluster, {.data = 8});
  // 3 passes of 8 sequences at half of 989 TFLOP/s.
  EXPECT_NEAR(fast.time.compute, 3 * 8 * computed_flops(workload) / (0.5 * 989e12), 1e-9);
  cluster.intra_bandwidth = 1e8;
  const auto slow = plan_layout(workload, cluster, {.data = 8});
  EXPECT_EQ(slow.time.bound(), Bound::kWire);
  EXPECT_EQ(slow.time.compute, fast.time.compute);
  EXPECT_GT(slow.time.total(), fast.time.total());
  cluster.memory_bandwidth = 1e6;
  EXPECT_EQ(plan_layout(workload, cluster, {.data = 8}).time.bound(), Bound::kMemory);
}

TEST(Planner, RefusesWhatCannotBe) {
  auto workload = small_workload(true);
  auto cluster = known_cluster("a100-80", 4);
  EXPECT_THAT(error_of([] { known_cluster("h20", 4); }), HasSubstr("did you mean \"h200\""));
  cluster.memory_bytes = 0;
  EXPECT_THAT(error_of([&] { plan_layouts(workload, cluster); }), HasSubstr("--memory"));
  cluster = known_cluster("a100-80", 0);
  EXPECT_THAT(error_of([&] { plan_layouts(workload, cluster); }), HasSubstr("--devices 0"));
  cluster = known_cluster("a100-80", 1);
  workload.batch_size = 0;
  EXPECT_THAT(error_of([&] { plan_layouts(workload, cluster); }), HasSubstr("--batch 0"));
  workload.batch_size = 8;
  workload.load_imbalance = 0.5;
  EXPECT_THAT(error_of([&] { plan_layouts(workload, cluster); }), HasSubstr("--imbalance 0.5"));
}

}  // namespace
}  // namespace switchyard
