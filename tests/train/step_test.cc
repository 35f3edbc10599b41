// A step is one thing, whatever it is cut into.
#include "train/step.h"

#include <ATen/Parallel.h>
#include <ATen/ops/allclose.h>
#include <gtest/gtest.h>

#include "model/routing_groups.h"
#include "model/routing_variants.h"
#include "train/teaching.h"

namespace switchyard {
namespace {

ModelConfig tiny() {
  auto config = test::tiny_model();
  config.dropout_rate = 0.1;
  config.expert_dropout_rate = 0.1;
  config.routing.group_size = 24;  // two sequences of the encoder
  return config;
}

struct Outcome {
  StepResult result;
  ModelWeights weights;
};

Outcome first_step(const ModelConfig& config, int64_t micro_batch_size, const Batch& batch = padded_batch()) {
  Learner learner(config, initialize(config, 4), {.learning_rate = 0.1, .schedule = "constant"},
                  {.dtype = at::kFloat, .seed = 3, .micro_batch_size = micro_batch_size});
  auto result = learner.update(batch, 1);
  return {std::move(result), learner.weights()};
}

// What is counted is equal, what is summed is equal up to the order of the sum.
void expect_same_step(const ModelConfig& config, const Outcome& whole, const Outcome& cut) {
  const auto near = [](double a, double b) { EXPECT_NEAR(a, b, 2e-6 * std::max(1.0, std::abs(a))); };
  near(whole.result.loss, cut.result.loss);
  near(whole.result.cross_entropy, cut.result.cross_entropy);
  near(whole.result.load_balance_loss, cut.result.load_balance_loss);
  near(whole.result.router_z_loss, cut.result.router_z_loss);
  near(whole.result.gradient_norm, cut.result.gradient_norm);
  ASSERT_EQ(whole.result.layers.size(), cut.result.layers.size());
  for (size_t n = 0; n < whole.result.layers.size(); ++n) {
    const auto a = whole.result.layers[n].statistics(), b = cut.result.layers[n].statistics();
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_EQ(a.dropped_fraction, b.dropped_fraction) << whole.result.layers[n].name;
    EXPECT_EQ(a.left_behind_fraction, b.left_behind_fraction);
    EXPECT_EQ(a.expert_utilization, b.expert_utilization);
    EXPECT_EQ(a.expert_load, b.expert_load);
    near(a.router_entropy, b.router_entropy);
    near(a.router_confidence, b.router_confidence);
    near(a.importance_loss, b.importance_loss);
    near(whole.result.layers[n].load_balance_loss.item<double>(),
         cut.result.layers[n].load_balance_loss.item<double>());
  }
  auto one = whole.weights, other = cut.weights;
  const auto parameters = list_parameters(config, one), others = list_parameters(config, other);
  for (size_t n = 0; n < parameters.size(); ++n)
    EXPECT_TRUE(at::allclose(*parameters[n].tensor, *others[n].tensor, 1e-3, 1e-5)) << parameters[n].spec.name;
}

TEST(Step, MicroBatchesComputeTheWholeBatch) {
  for (const auto& variant : routing_variants()) {
    SCOPED_TRACE(variant.name);
    auto config = with_variant(tiny(), variant);
    const auto whole = first_step(config, 0);
    const int64_t unit = sequences_per_cut(config, {8, 12, 6});
    for (const int64_t size : {unit, 2 * unit, 3 * unit}) {
      if (size >= 8) continue;
      SCOPED_TRACE(size);
      expect_same_step(config, whole, first_step(config, size));
    }
  }
}

TEST(Step, TheVariantsThatCanBeCutAre) {
  int64_t cut = 0, dropping = 0;
  for (const auto& variant : routing_variants()) {
    const auto config = with_variant(tiny(), variant);
    cut += sequences_per_cut(config, {8, 12, 6}) < 8 ? 1 : 0;
    dropping += mean_dropped_fraction(first_step(config, 0).result) > 0.0 ? 1 : 0;
  }
  EXPECT_GE(cut, 20);
  EXPECT_GE(dropping, 15);
}

// To the bit, on one thread, as products of other sizes than multiples of 64 are libtorch's.
TEST(Step, BlocksThatAreComputedAgainChangeNothing) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  for (const auto& variant : routing_variants()) {
    SCOPED_TRACE(variant.name);
    auto config = with_variant(tiny(), variant);
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const auto updated = [&](int64_t recompute_blocks) {
        Learner learner(config, initialize(config, 4), {.learning_rate = 0.1, .schedule = "constant"},
                        {.dtype = dtype, .seed = 3, .recompute_blocks = recompute_blocks});
        auto result = learner.update(padded_batch(), 1);
        return Outcome{std::move(result), learner.weights()};
      };
      auto kept = updated(0);
      for (const int64_t count : {1, 100}) {
        auto again = updated(count);
        EXPECT_EQ(kept.result.loss, again.result.loss);
        EXPECT_EQ(kept.result.gradient_norm, again.result.gradient_norm);
        EXPECT_EQ(mean_dropped_fraction(kept.result), mean_dropped_fraction(again.result));
        const auto parameters = list_parameters(config, kept.weights), others = list_parameters(config, again.weights);
        for (size_t n = 0; n < parameters.size(); ++n)
          EXPECT_TRUE(parameters[n].tensor->equal(*others[n].tensor)) << parameters[n].spec.name;
      }
    }
  }
  at::set_num_threads(threads);
}

TEST(Step, ACutThroughAGroupIsRefused) { EXPECT_THROW(first_step(tiny(), 1), Error); }

}  // namespace
}  // namespace switchyard
