#include "plan/memory.h"

#include <gtest/gtest.h>

#include "plan/activations.h"
#include "plan/models.h"

namespace switchyard {
namespace {

double activations(const Workload& workload, const Layout& layout, int64_t micro_batch) {
  return activations(pass_segments(workload, layout, micro_batch));
}

MemoryUse use_of(const Workload& workload, const Layout& layout, int64_t micro_batch) {
  return memory_use(workload, layout, rank_states(workload, layout), micro_batch);
}

// What autograd keeps, tensor by tensor, of a model with one dense layer a stack: 2 sequences of 64 + 32 tokens in
// bf16, d_model 16, 4 heads of 8, d_ff 32.
TEST(Activations, AreThoseThatEachOperationKeeps) {
  const double inputs = 2 * 64, targets = 2 * 32, d = 16, inner = 32, d_ff = 32, heads = 4;
  const auto norm = [&](double tokens) { return tokens * d * (4 + 2); };  // f32 stream, bf16 normed
  const auto attend = [&](double queries, double keys) {
    return 2 * inner * (2 * queries + 2 * keys) + 4 * heads * queries;  // q and output, k and v, log-sum-exp
  };
  const double encoder = 8 * inputs + norm(inputs) + attend(inputs, inputs) + norm(inputs) + 2 * inputs * d_ff +
                         norm(inputs);  // ids, attention, feed-forward's hidden layer, final norm
  const double decoder = 8 * targets + norm(targets) + attend(targets, targets) + norm(targets) +
                         attend(targets, inputs) + norm(targets) + 2 * targets * d_ff + norm(targets);
  const double loss = (8 + 4) * targets;  // labels and log-partitions
  EXPECT_EQ(activations(small_workload(false), {}, 2), encoder + decoder + loss);
}

TEST(Activations, GrowWithTheMicroBatchAndFallWithTensorRanks) {
  for (const bool sparse : {false, true}) {
    const auto workload = small_workload(sparse);
    EXPECT_EQ(activations(workload, {}, 4), 2 * activations(workload, {}, 2));
    EXPECT_LT(activations(workload, {.tensor = 2}, 4), activations(workload, {}, 4));
    EXPECT_GT(activations(workload, {.tensor = 2}, 4), 0.5 * activations(workload, {}, 4)) << "the stream stays whole";
  }
}

// A sparse layer keeps what a dense one keeps, its rows and outputs once more, two [tokens, experts] f32 of the router,
// and the indices of rows and tokens.
TEST(Activations, OfExpertsAreTheDenseLayersAndTheRouters) {
  const double tokens = 2 * (64 + 32), d = 16, experts = 4;
  EXPECT_EQ(activations(small_workload(true), {}, 2) - activations(small_workload(false), {}, 2),
            tokens * (2 * 2 * d + 2 * 4 * experts + 2 * 8 + 4 * 8 + 4));
}

TEST(Activations, OfARecomputedBlockAreItsInput) {
  auto workload = small_workload(false);
  const double all = activations(workload, {}, 2);
  workload.recompute_blocks = 1;
  const double tokens = 2 * (64 + 32), d = 16;
  const double beside = 8 * tokens + tokens * d * (4 + 2) + (8 + 4) * 2 * 32;  // ids, final norms, loss
  EXPECT_EQ(activations(workload, {}, 2), beside + 4 * tokens * d);
  EXPECT_LT(activations(workload, {}, 2), all);
}

TEST(PassMemory, FollowsTheFullestMomentOfBothPasses) {
  std::vector<PassSegment> segments = {
      {.name = "first", .saved = 10, .gradients = 7, .forward_work = 1, .backward_work = 2},
      {.name = "second", .saved = 5, .gradients = 1, .forward_work = 30, .backward_work = 3}};
  EXPECT_EQ(activations(segments), 15);
  const auto peak = [&](GradientFate fate) { return pass_memory(segments, fate, /*is_bf16=*/true).peak; };
  EXPECT_EQ(peak(GradientFate::kKept), 45) << "work of the second segment in the forward pass";
  segments[1].forward_work = 0;
  EXPECT_EQ(peak(GradientFate::kKept), 20) << "start of the first segment's backward pass: 10 + 1 + 7 + 2";
  EXPECT_EQ(peak(GradientFate::kAdded), 19) << "either: 15 + 3 + 1, 10 + 2 + 7";
  EXPECT_EQ(peak(GradientFate::kAddedLater), 20);
  EXPECT_EQ(peak(GradientFate::kWidened), 35) << "10 + 2 (1 + 7) + 2 + 7";
  EXPECT_EQ(pass_memory(segments, GradientFate::kKept, true).gradients, 8);
  EXPECT_EQ(pass_memory(segments, GradientFate::kWidened, true).gradients, 16);
  EXPECT_EQ(pass_memory(segments, GradientFate::kAdded, true).gradients, 0);
}

// The gradients of two look-ups of one table become one.
TEST(PassMemory, HoldsATableOnce) {
  const std::vector<PassSegment> segments = {{.name = "encoder", .saved = 1, .table_gradient = 100},
                                             {.name = "decoder", .saved = 1, .table_gradient = 100}};
  const auto memory = pass_memory(segments, GradientFate::kKept, /*is_bf16=*/true);
  EXPECT_EQ(memory.gradients, 100);
  EXPECT_EQ(memory.peak, 201);
}

TEST(MemoryUse, OfOneDeviceIsTheModelAndItsGradients) {
  const auto workload = small_workload(true);
  double numel = 0;
  for (const auto& spec : parameter_specs(workload.model)) numel += static_cast<double>(spec.numel());
  const auto sums = use_of(workload, {}, 4), once = use_of(workload, {}, 8);
  EXPECT_EQ(sums.gradients, 4 * numel) << "of two passes";
  EXPECT_LT(once.gradients, 3 * numel) << "in bf16, a table in f32 too";
  EXPECT_GT(once.gradients, 1.9 * numel);
  for (const auto& use : {sums, once}) {
    EXPECT_GT(use.weights, 4 * numel);
    EXPECT_LT(use.weights, 6 * numel);
    EXPECT_EQ(use.weights - use.copies, 4 * numel);
    EXPECT_EQ(use.total(), use.weights + use.gradients + use.optimizer + use.activations + use.buffers - use.overlap);
  }
  EXPECT_EQ(once.activations, activations(workload, {}, 8));
}

TEST(MemoryUse, FallsWithDevices) {
  Workload workload;
  workload.model = preset("switch-base-8");
  workload.batch_size = 64;
  const auto one = use_of(workload, {}, 16), experts = use_of(workload, {.expert = 8}, 16),
             tensors = use_of(workload, {.tensor = 4}, 16), data = use_of(workload, {.data = 4}, 16);
  EXPECT_LT(experts.weights, 0.5 * one.weights);
  EXPECT_LT(tensors.weights, 0.3 * one.weights);
  EXPECT_EQ(data.weights, one.weights);
  EXPECT_LT(data.optimizer, 0.5 * one.optimizer);
  EXPECT_LT(experts.gradients, 0.5 * one.gradients);
  EXPECT_LT(tensors.activations, one.activations);
}

}  // namespace
}  // namespace switchyard
