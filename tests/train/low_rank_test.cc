#include "train/low_rank.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>

#include "train/step.h"
#include "train/teaching.h"

namespace switchyard {
namespace {

std::vector<ParameterSpec> two_specs() {
  return {{.name = "first.weight", .shape = {6, 4}}, {.name = "second.weight", .shape = {4, 8}}};
}

TEST(LowRankUpdates, GradientsMatchDifferences) {
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const std::vector<at::Tensor> matrices = {at::randn({6, 4}, options), at::randn({4, 8}, options)};
  LowRankUpdates updates({.rank = 3, .alpha = 5.0}, two_specs(), matrices, 1);
  const auto parameters = updates.parameters();
  ASSERT_EQ(parameters.size(), 4u);
  EXPECT_EQ(parameters[2].name, "second.weight.lora_A");
  for (const auto& parameter : parameters) parameter.tensor.copy_(at::randn(parameter.tensor.sizes(), options));
  const auto loss = [&] {  // of the matrices as a model sees them: their product, cubed
    updates.apply();
    const auto product = at::mm(matrices[0], matrices[1]);
    return (product * product * product).sum().item<double>();
  };
  loss();
  const auto product = at::mm(matrices[0], matrices[1]), outer = product * product * 3.0;
  const auto gradients = updates.gradients({at::mm(outer, matrices[1].t()), at::mm(matrices[0].t(), outer)});
  for (size_t n = 0; n < parameters.size(); ++n)
    for (int64_t place = 0; place < parameters[n].tensor.numel(); place += 5) {
      auto value = parameters[n].tensor.view({-1})[place];
      constexpr double kStep = 1e-6;
      value += kStep;
      const double above = loss();
      value -= 2 * kStep;
      const double below = loss();
      value += kStep;
      const double expected = (above - below) / (2 * kStep);
      EXPECT_NEAR(gradients[n].contiguous().view({-1})[place].item<double>(), expected, 1e-5 * (1 + std::abs(expected)))
          << parameters[n].name << " " << place;
    }
}

TEST(LowRankUpdates, BeginAsTheModel) {
  const auto matrix = at::randn({6, 4});
  const auto before = matrix.clone();
  LowRankUpdates updates({.rank = 2, .alpha = 8.0}, {two_specs()[0]}, {matrix}, 1);
  updates.apply();
  EXPECT_TRUE(matrix.equal(before));
  EXPECT_THROW(LowRankUpdates({.rank = 5, .alpha = 8.0}, {two_specs()[0]}, {matrix}, 1), Error);
}

struct Trained {
  ModelConfig config;
  ModelWeights before, after;
  Adapters adapters;
  double first_loss, last_loss;
};

Trained train(const std::vector<std::string>& frozen) {
  const auto config = sparse_teacher();
  auto before = initialize(config, 4);
  Learner learner(config, initialize(config, 4), {.name = "adamw", .learning_rate = 0.01, .schedule = "constant"},
                  {.dtype = at::kFloat, .seed = 3, .frozen = frozen, .low_rank = {.rank = 4, .alpha = 8.0}});
  const double first = learner.update(padded_batch(), 1).cross_entropy;
  for (int64_t step = 2; step <= 40; ++step) learner.update(padded_batch(), step);
  return {config,
          before,
          learner.weights(),
          learner.low_rank()->adapters(),
          first,
          learner.update(padded_batch(), 41).cross_entropy};
}

TEST(LowRankUpdates, ChangeTheirMatricesAlone) {
  auto trained = train({});
  EXPECT_LT(trained.last_loss, trained.first_loss - 0.1);
  const auto before = list_parameters(trained.config, trained.before),
             after = list_parameters(trained.config, trained.after);
  size_t adapted = 0;
  for (size_t n = 0; n < before.size(); ++n) {
    const auto pair = std::find_if(trained.adapters.pairs.begin(), trained.adapters.pairs.end(),
                                   [&](const auto& each) { return each.matrix == before[n].spec.name; });
    EXPECT_EQ(pair != trained.adapters.pairs.end(), takes_low_rank(before[n].spec)) << before[n].spec.name;
    if (pair == trained.adapters.pairs.end()) {
      EXPECT_TRUE(before[n].tensor->equal(*after[n].tensor)) << before[n].spec.name;
      continue;
    }
    ++adapted;
    EXPECT_FALSE(before[n].tensor->equal(*after[n].tensor)) << before[n].spec.name;
    EXPECT_TRUE(at::allclose(*before[n].tensor + at::mm(pair->b, pair->a) * 2.0, after[n].tensor->detach()))
        << before[n].spec.name;
  }
  EXPECT_EQ(adapted, trained.adapters.pairs.size());
  EXPECT_GT(adapted, 12u);
}

TEST(LowRankUpdates, LeaveFrozenGroupsOut) {
  for (const auto& pair : train({"feed_forward"}).adapters.pairs)
    EXPECT_THAT(pair.matrix, testing::HasSubstr("Attention"));
}

}  // namespace
}  // namespace switchyard
