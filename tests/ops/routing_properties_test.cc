// What holds for every router, over random shapes, in fp64 and fp32.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "base/error.h"
#include "ops/experts.h"
#include "ops/gradient_check.h"
#include "ops/router.h"

namespace switchyard::ops {
namespace {

using test::evaluate;
using test::expect_gradients_match_differences;
using test::expect_same_as_f64;
using test::random_tensor;
using test::Tensors;

struct Variant {
  const char* name;
  RouteOptions options;
};

std::vector<Variant> variants() {
  std::vector<Variant> list;
  const auto add = [&](const char* name, auto&& change) {
    RouteOptions options;
    options.noise = {.seed = 5, .purpose = NoisePurpose::kExploration};
    change(options);
    list.push_back({name, options});
  };
  add("top1", [](RouteOptions&) {});
  add("top2_mesh", [](RouteOptions& o) {
    o.num_selected_experts = 2;
    o.gate_normalization = GateNormalization::kBeforeDrop;
  });
  add("top2_after_drop", [](RouteOptions& o) {
    o.num_selected_experts = 2;
    o.gate_normalization = GateNormalization::kAfterDrop;
    o.drop_priority = DropPriority::kToken;
  });
  add("top3_all_choices", [](RouteOptions& o) {
    o.num_selected_experts = 3;
    o.load_balance_choices = LoadBalanceChoices::kAll;
    o.drop_priority = DropPriority::kExpert;
  });
  add("top2_threshold", [](RouteOptions& o) {
    o.num_selected_experts = 2;
    o.second_expert_policy = SecondExpertPolicy::kThreshold;
    o.gate_normalization = GateNormalization::kBeforeDrop;
    o.load_balance_choices = LoadBalanceChoices::kMean;
  });
  add("top2_sampled", [](RouteOptions& o) {
    o.num_selected_experts = 2;
    o.second_expert_policy = SecondExpertPolicy::kSampled;
  });
  add("batch_prioritised", [](RouteOptions& o) {
    o.num_selected_experts = 2;
    o.drop_priority = DropPriority::kBatch;
  });
  add("no_token_left_behind", [](RouteOptions& o) {
    o.router = RouterKind::kNoTokenLeftBehind;
    o.num_selected_experts = 4;
  });
  add("expert_choice", [](RouteOptions& o) { o.router = RouterKind::kExpertChoice; });
  add("sigmoid", [](RouteOptions& o) {
    o.num_selected_experts = 2;
    o.router_score = RouterScore::kSigmoid;
    o.gate_normalization = GateNormalization::kAfterDrop;
  });
  add("sampled_softmax", [](RouteOptions& o) { o.sample_temperature = 1.0; });
  add("mesh_padding", [](RouteOptions& o) { o.padding = PaddingRule::kCountedInLoad; });
  return list;
}

// A random case: logits, a mask on odd trials, groups and capacities that drop.
struct Case {
  at::Tensor logits, mask;
  RouteOptions options;
};
Case random_case(const Variant& variant, uint64_t trial) {
  NoiseStream pick({.seed = trial, .purpose = NoisePurpose::kShuffle});
  const auto tokens = static_cast<int64_t>(1 + pick.below(60)), num_experts = static_cast<int64_t>(4 + pick.below(30));
  Case result{random_tensor({tokens, num_experts}, trial, at::kDouble, 1.5), {}, variant.options};
  result.options.group_size = static_cast<int64_t>(1 + pick.below(40));
  if (trial % 3 == 1) result.options.loss_group_size = static_cast<int64_t>(1 + pick.below(40));
  for (int64_t start = 0; start < tokens; start += result.options.group_size)
    result.options.expert_capacity.push_back(static_cast<int64_t>(1 + pick.below(4)));
  if (trial % 2 == 1) {
    result.mask = at::ones({tokens}, at::kBool);
    for (int64_t token = 1; token < tokens; ++token)
      if (pick.below(4) == 0) result.mask[token] = false;
  }
  return result;
}

struct Pair {
  int64_t token, expert;
  double gate;
};
std::vector<Pair> pairs(const Routing& routing) {
  std::vector<Pair> list;
  int64_t row = 0;
  const auto gates = routing.gate.detach().to(at::kDouble);
  const auto num_rows = routing.dispatch.rows_by_expert();
  for (size_t expert = 0; expert < num_rows.size(); ++expert)
    for (int64_t n = 0; n < num_rows[expert]; ++n, ++row)
      list.push_back(
          {routing.dispatch.token[row].item<int64_t>(), static_cast<int64_t>(expert), gates[row].item<double>()});
  return list;
}

template <class Check>
void for_all(Check&& check) {
  for (const auto& variant : variants())
    for (uint64_t trial = 0; trial < 12; ++trial) {
      SCOPED_TRACE(testing::Message() << variant.name << " trial " << trial);
      check(variant, random_case(variant, trial));
    }
}

TEST(EveryRouter, KeepsToCapacityAndToEachTokensChoices) {
  for_all([](const Variant& variant, const Case& given) {
    for (const auto dtype : {at::kFloat, at::kDouble}) {
      const auto routing = route(given.logits.to(dtype), given.mask, given.options);
      std::set<std::pair<int64_t, int64_t>> seen;
      std::map<std::pair<int64_t, int64_t>, int64_t> in_group;
      std::map<int64_t, int64_t> of_token;
      for (const auto& pair : pairs(routing)) {
        EXPECT_TRUE(seen.insert({pair.token, pair.expert}).second) << "a token twice at one expert";
        const int64_t group = pair.token / given.options.group_size;
        auto& taken = in_group[std::pair(group, pair.expert)];
        EXPECT_LE(++taken, given.options.expert_capacity[static_cast<size_t>(group)]);
        ++of_token[pair.token];
        if (given.mask.defined()) {
          EXPECT_TRUE(given.mask[pair.token].item<bool>()) << "padding got a slot";
        }
        EXPECT_GE(pair.gate, 0.0);
        EXPECT_LE(pair.gate, 1.0 + 1e-6);
      }
      const int64_t most = variant.options.router == RouterKind::kTopK ? given.options.num_selected_experts : 1;
      if (variant.options.router == RouterKind::kExpertChoice) continue;
      for (const auto& [token, count] : of_token) EXPECT_LE(count, most);
    }
  });
}

// Sigmoid scores and noise aside: who is kept follows from a sentence that does not run through slots.
TEST(EveryRouter, ExpertChoiceTakesTheMostProbable) {
  for (uint64_t trial = 0; trial < 20; ++trial) {
    RouteOptions options;
    options.router = RouterKind::kExpertChoice;
    const auto given = random_case({"", options}, trial);
    const auto p = at::softmax(given.logits, 1);
    const auto routing = route(given.logits, given.mask, given.options);
    std::map<std::pair<int64_t, int64_t>, double> least;
    std::set<std::pair<int64_t, int64_t>> kept;
    for (const auto& pair : pairs(routing)) {
      kept.insert({pair.token, pair.expert});
      auto& value = least.emplace(std::pair{pair.token / given.options.group_size, pair.expert}, 2.0).first->second;
      value = std::min(value, p[pair.token][pair.expert].item<double>());
    }
    for (int64_t token = 0; token < p.size(0); ++token)
      for (int64_t expert = 0; expert < p.size(1); ++expert) {
        if (kept.contains({token, expert}) || (given.mask.defined() && !given.mask[token].item<bool>())) continue;
        const auto group = std::pair(token / given.options.group_size, expert);
        EXPECT_LE(p[token][expert].item<double>(), least.at(group));
      }
  }
}

TEST(EveryRouter, TopOneDropsTheLastAndBatchPriorityTheLeastProbable) {
  for (const auto priority : {DropPriority::kChoice, DropPriority::kBatch, DropPriority::kExpert})
    for (uint64_t trial = 0; trial < 20; ++trial) {
      RouteOptions options;
      options.drop_priority = priority;
      const auto given = random_case({"", options}, trial);
      const auto p = at::softmax(given.logits, 1);
      const auto routing = route(given.logits, given.mask, given.options);
      const auto best = std::get<1>(given.logits.max(1));
      for (int64_t token = 0; token < p.size(0); ++token) {
        if (given.mask.defined() && !given.mask[token].item<bool>()) continue;
        if (routing.expert_index[token].item<int64_t>() >= 0) continue;
        for (const auto& pair : pairs(routing)) {
          if (pair.token / given.options.group_size != token / given.options.group_size ||
              pair.expert != best[token].item<int64_t>())
            continue;
          if (priority == DropPriority::kChoice) {
            EXPECT_LT(pair.token, token);
          } else {
            EXPECT_GE(p[pair.token][pair.expert].item<double>(), p[token][pair.expert].item<double>());
          }
        }
      }
    }
}

at::Tensor outputs(const at::Tensor& logits, const Case& given) {
  const auto routing = route(logits, given.mask, given.options);
  return at::cat({routing.gate, routing.load_balance_loss.view({1}), routing.router_z_loss.view({1}),
                  routing.importance_loss.view({1})});
}

TEST(EveryRouter, GradientsMatchDifferences) {
  for (const auto& variant : variants())
    for (const uint64_t trial : {2, 5}) {
      SCOPED_TRACE(testing::Message() << variant.name << " trial " << trial);
      const auto given = random_case(variant, trial);
      expect_gradients_match_differences([&](const Tensors& in) { return outputs(in[0], given); }, {given.logits}, 40,
                                         2e-6);
    }
}

TEST(EveryRouter, FusedMatchesF64) {
  for_all([](const Variant&, const Case& given) {
    const auto call = [&](const Tensors& in) { return outputs(in[0], given); };
    expect_same_as_f64(call, call, {given.logits.to(at::kFloat)}, 5e-6);
  });
}

TEST(EveryRouter, PermutingExpertsPermutesResults) {
  for_all([](const Variant& variant, const Case& given) {
    if (variant.options.sample_temperature > 0) return;  // its noise belongs to the experts' places
    const int64_t num_experts = given.logits.size(1);
    const auto order = at::randperm(num_experts, at::kLong);
    std::vector<int64_t> place(static_cast<size_t>(num_experts));
    for (int64_t n = 0; n < num_experts; ++n) place[static_cast<size_t>(order[n].item<int64_t>())] = n;
    const auto plain = route(given.logits, given.mask, given.options);
    const auto moved = route(given.logits.index_select(1, order), given.mask, given.options);
    std::set<std::pair<int64_t, int64_t>> wanted, got;
    for (const auto& pair : pairs(plain)) wanted.insert({pair.token, place[static_cast<size_t>(pair.expert)]});
    for (const auto& pair : pairs(moved)) got.insert({pair.token, pair.expert});
    EXPECT_EQ(got, wanted);
    EXPECT_NEAR(moved.load_balance_loss.item<double>(), plain.load_balance_loss.item<double>(), 1e-9);
    EXPECT_NEAR(moved.importance_loss.item<double>(), plain.importance_loss.item<double>(), 1e-9);
  });
}

TEST(EveryRouter, PermutingTokensInsideCapacityChangesNothing) {
  for (const auto& variant : variants()) {
    if (variant.options.sample_temperature > 0 || variant.options.second_expert_policy == SecondExpertPolicy::kSampled)
      continue;
    if (variant.options.router == RouterKind::kExpertChoice) continue;  // its capacity is what it takes
    SCOPED_TRACE(variant.name);
    auto options = variant.options;
    options.group_size = 30;
    options.expert_capacity = {90};
    const auto logits = random_tensor({30, 7}, 3);
    const auto order = at::randperm(30, at::kLong);
    const auto plain = route(logits, {}, options), moved = route(logits.index_select(0, order), {}, options);
    EXPECT_TRUE(moved.expert_index.equal(plain.expert_index.index_select(0, order)));
    EXPECT_NEAR(moved.gate.sum().item<double>(), plain.gate.sum().item<double>(), 1e-12);
    EXPECT_NEAR(moved.load_balance_loss.item<double>(), plain.load_balance_loss.item<double>(), 1e-12);
  }
}

TEST(EveryRouter, PaddingChangesNothingWhateverItsContent) {
  for_all([](const Variant& variant, const Case& given) {
    if (!given.mask.defined() || variant.options.padding == PaddingRule::kCountedInLoad) return;
    for (const auto dtype : {at::kFloat, at::kDouble}) {
      const auto logits = given.logits.to(dtype);
      auto other = logits.clone();
      other.masked_fill_(given.mask.logical_not().unsqueeze(1), 37.0);
      const auto one = route(logits, given.mask, given.options), two = route(other, given.mask, given.options);
      EXPECT_TRUE(one.expert_index.equal(two.expert_index));
      EXPECT_TRUE(one.gate.equal(two.gate));
      EXPECT_TRUE(one.load_balance_loss.equal(two.load_balance_loss));
      EXPECT_TRUE(one.router_z_loss.equal(two.router_z_loss));
      EXPECT_TRUE(one.importance_loss.equal(two.importance_loss));
    }
  });
}

TEST(EveryRouter, ABatchOfOneEqualsThatRowInABatch) {
  constexpr int64_t kLength = 9, kBatch = 4;
  for (const auto& variant : variants()) {
    SCOPED_TRACE(variant.name);
    const auto logits = random_tensor({kBatch * kLength, 6}, 8);
    auto options = variant.options;
    options.group_size = kLength;
    options.expert_capacity.assign(kBatch, 2);
    const auto batch = route(logits, {}, options);
    options.expert_capacity = {2};
    for (int64_t row = 0; row < kBatch; ++row) {
      options.first_token = row * kLength;
      const auto alone = route(logits.narrow(0, row * kLength, kLength), {}, options);
      EXPECT_TRUE(alone.expert_index.equal(batch.expert_index.narrow(0, row * kLength, kLength)));
    }
  }
}

TEST(EveryRouter, TwoCallsAreBitIdentical) {
  for_all([](const Variant&, const Case& given) {
    const auto call = [&](const Tensors& in) { return outputs(in[0], given); };
    const auto one = evaluate(call, {given.logits.to(at::kFloat)}), two = evaluate(call, {given.logits.to(at::kFloat)});
    EXPECT_TRUE(one.value.equal(two.value));
    EXPECT_TRUE(one.gradients[0].equal(two.gradients[0]));
  });
}

// Every gate that was not dropped has a gradient, through the whole layer.
TEST(EveryRouter, LayerGradientsMatchDifferences) {
  for (const auto& variant : variants()) {
    SCOPED_TRACE(variant.name);
    auto options = variant.options;
    options.group_size = 6;
    options.expert_capacity = {2, 2};
    const auto x = random_tensor({11, 3}, 1), router = random_tensor({5, 3}, 2);
    const auto layer = [&](const Tensors& in) {
      const auto routing = route(router_logits(in[0], in[1], {}, {}), {}, options);
      return experts_feed_forward(in[0], routing.gate, routing.dispatch, in[2], {}, in[3],
                                  {.activation = Activation::kGeluNew, .key = {}});
    };
    expect_gradients_match_differences(layer, {x, router, random_tensor({5, 4, 3}, 3), random_tensor({5, 3, 4}, 4)}, 30,
                                       2e-6);
  }
}

TEST(Experts, SeveralRowsOfATokenAddUp) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    RouteOptions options;
    options.num_selected_experts = 3;
    options.group_size = 50;
    options.expert_capacity = {20};
    const auto logits = random_tensor({50, 6}, 1, at::kFloat);
    const auto routing = route(logits, {}, options);
    const auto call = [&](const Tensors& in) {
      return experts_feed_forward(in[0], in[1], routing.dispatch, in[2], {}, in[3], {.key = {}});
    };
    const Tensors in = {random_tensor({50, 32}, 2, dtype), routing.gate.detach(),
                        random_tensor({6, 48, 32}, 3, dtype, 0.3), random_tensor({6, 32, 48}, 4, dtype, 0.3)};
    expect_same_as_f64(
        call,
        [&](const Tensors& wide) {
          // Token by token, expert by expert, in f64.
          auto y = at::zeros({50, 32}, at::kDouble);
          std::vector<at::Tensor> rows(50, at::zeros({32}, at::kDouble));
          int64_t row = 0;
          for (int64_t expert = 0; expert < 6; ++expert)
            for (int64_t n = 0; n < routing.dispatch.rows_by_expert()[static_cast<size_t>(expert)]; ++n, ++row) {
              const auto token = routing.dispatch.token[row].item<int64_t>();
              const auto hidden = wide[2][expert].matmul(wide[0][token]).relu();
              rows[static_cast<size_t>(token)] =
                  rows[static_cast<size_t>(token)] + wide[1][row] * wide[3][expert].matmul(hidden);
            }
          return at::stack(rows);
        },
        in, 2 * test::tolerance_of(dtype));
  }
}

TEST(Experts, LinearMatchesTheReference) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    RouteOptions options;
    options.group_size = 40;
    options.expert_capacity = {7};
    const auto routing = route(random_tensor({40, 4}, 1, at::kFloat), {}, options);
    ASSERT_GT(read_statistics(routing.counts).dropped_fraction, 0.0);
    expect_same_as_f64(
        [&](const Tensors& in) { return experts_linear(in[0], in[1], routing.dispatch, in[2]); },
        [&](const Tensors& in) {
          std::vector<at::Tensor> rows(40, at::zeros({48}, at::kDouble));
          int64_t row = 0;
          for (int64_t expert = 0; expert < 4; ++expert)
            for (int64_t n = 0; n < routing.dispatch.rows_by_expert()[static_cast<size_t>(expert)]; ++n, ++row) {
              const auto token = routing.dispatch.token[row].item<int64_t>();
              rows[static_cast<size_t>(token)] = in[1][row] * in[2][expert].matmul(in[0][token]);
            }
          return at::stack(rows);
        },
        {random_tensor({40, 32}, 2, dtype), routing.gate.detach(), random_tensor({4, 48, 32}, 3, dtype, 0.3)},
        2 * test::tolerance_of(dtype));
  }
}

TEST(SampledSoftmax, DrawsByProbabilityAndKeepsTheirGates) {
  const auto p = at::tensor({0.5, 0.3, 0.2}, at::kDouble);
  RouteOptions options;
  options.sample_temperature = 1.0;
  options.noise = {.seed = 1, .purpose = NoisePurpose::kExploration};
  options.group_size = 30000;
  options.expert_capacity = {30000};
  const auto routing = route(p.log().expand({30000, 3}).contiguous(), {}, options);
  for (int64_t expert = 0; expert < 3; ++expert)
    EXPECT_NEAR(static_cast<double>(routing.dispatch.rows_by_expert()[static_cast<size_t>(expert)]) / 30000.0,
                p[expert].item<double>(), 0.012);
  EXPECT_NEAR(routing.gate.min().item<double>(), 0.2, 1e-9);
}

// The largest uniform, 1 - 2^-24, is drawn for expert 3 by this token: its noise is 17.3, and not infinite.
TEST(SampledSoftmax, TheLargestNoiseIsFinite) {
  RouteOptions options;
  options.sample_temperature = 1.0;
  options.noise = {.seed = 1, .purpose = NoisePurpose::kExploration};
  options.first_token = 6316676;
  NoiseStream stream(options.noise, static_cast<uint64_t>(options.first_token));
  for (int64_t expert = 0; expert < 3; ++expert) stream.uniform();
  ASSERT_EQ(stream.uniform(), 1.0F - 0x1p-24F);
  options.group_size = 1;
  options.expert_capacity = {1};
  auto logits = at::zeros({1, 8}, at::kFloat);
  for (const auto& [logit, wins] : {std::pair{-50.0, false}, std::pair{-5.0, true}}) {
    logits[0][3] = logit;
    EXPECT_EQ(route(logits, {}, options).expert_index[0].item<int64_t>() == 3, wins) << "logit " << logit;
  }
}

TEST(SelectionBias, MovesChoicesButNotGates) {
  RouteOptions options;
  options.router_score = RouterScore::kSigmoid;
  options.group_size = 2;
  options.expert_capacity = {2};
  options.selection_bias = at::tensor({0.0, 0.3}, at::kFloat);
  const auto logits = at::tensor({0.5, 0.0, 3.0, 0.0}, at::kDouble).view({2, 2});
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const auto routing = route(logits.to(dtype), {}, options);
    // sigmoid(0.5) = 0.622 < 0.5 + 0.3; sigmoid(3) = 0.953 > 0.8
    EXPECT_EQ(routing.expert_index[0].item<int64_t>(), 1);
    EXPECT_EQ(routing.expert_index[1].item<int64_t>(), 0);
    EXPECT_NEAR(routing.gate[0].item<double>(), 0.9525741, 1e-6);
    EXPECT_NEAR(routing.gate[1].item<double>(), 0.5, 1e-6);
  }
}

// HF chooses by probabilities rounded to bf16, where near ties fall to the lowest index.
TEST(SelectionDtype, RoundedProbabilitiesTie) {
  RouteOptions options;
  options.group_size = 1;
  options.expert_capacity = {1};
  const auto logits = at::tensor({0.0F, 1e-4F}, at::kFloat).view({1, 2});
  EXPECT_EQ(route(logits, {}, options).expert_index.item<int64_t>(), 1);
  options.selection_dtype = at::kBFloat16;
  EXPECT_EQ(route(logits, {}, options).expert_index.item<int64_t>(), 0);
}

TEST(HashRouting, GatesAreOneAndLossesZero) {
  RouteOptions options;
  options.group_size = 6;
  options.expert_capacity = {2};
  const auto routing = route_to(at::tensor({1, 1, 0, 1, 2, 0}, at::kLong), 3, {}, options, at::kFloat);
  EXPECT_EQ(routing.dispatch.rows_by_expert(), (std::vector<int64_t>{2, 2, 1}));
  EXPECT_EQ(routing.expert_index[3].item<int64_t>(), -1);
  EXPECT_TRUE(routing.gate.equal(at::ones({5}, at::kFloat)));
  EXPECT_EQ(routing.load_balance_loss.item<double>(), 0.0);
}

TEST(HashRouting, RefusesOtherExpertsAndProbabilitiesItHasNot) {
  RouteOptions options;
  options.group_size = 2;
  options.expert_capacity = {2};
  const auto to = [&](int64_t expert) {
    return route_to(at::tensor({int64_t{0}, expert}), 3, {}, options, at::kFloat);
  };
  EXPECT_NO_THROW(to(2));
  EXPECT_THROW(to(3), Error);
  EXPECT_THROW(to(-1), Error);
  for (const auto priority : {DropPriority::kBatch, DropPriority::kExpert}) {
    options.drop_priority = priority;
    EXPECT_THROW(to(2), Error);
  }
}

TEST(LoadLoss, IsTheSpreadOfTheChanceToWin) {
  // Two tokens, two experts, std 1: P(e wins) = Phi(logit - best logit).
  const auto logits = at::tensor({1.0, 0.0, 2.0, 0.5}, at::kDouble).view({2, 2});
  const auto phi = [](double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); };
  const double load[] = {1.0, phi(-1.0) + phi(-1.5)};  // Phi(0) = 0.5 each
  const double mean = (load[0] + load[1]) / 2, spread = (load[0] - load[1]) / 2;
  EXPECT_NEAR(load_loss(logits, {}, 1, 1.0).item<double>(), spread * spread / (mean * mean), 1e-8);
  expect_gradients_match_differences([](const Tensors& in) { return load_loss(in[0], {}, 2, 0.5); },
                                     {random_tensor({6, 4}, 3)}, 24, 1e-6);
}

TEST(ImportanceLoss, IsTheSquaredCoefficientOfVariation) {
  RouteOptions options;
  options.group_size = 2;
  options.expert_capacity = {2};
  const auto p = at::tensor({0.9, 0.1, 0.7, 0.3}, at::kDouble).view({2, 2});
  // Importances 1.6 and 0.4: mean 1, variance 0.36.
  EXPECT_NEAR(route(p.log(), {}, options).importance_loss.item<double>(), 0.36, 1e-12);
}

TEST(ExpertsOfTokens, ListsThemByFallingGate) {
  RouteOptions options;
  options.num_selected_experts = 2;
  options.group_size = 3;
  options.expert_capacity = {2};
  const auto p = at::tensor({0.1, 0.3, 0.6, 0.5, 0.4, 0.1, 0.2, 0.35, 0.45}, at::kDouble).view({3, 3});
  const auto experts = experts_of_tokens(route(p.log(), {}, options), 3, 2);
  EXPECT_TRUE(experts.equal(at::tensor({2, 1, 0, 1, 2, -1}, at::kLong).view({3, 2}))) << experts;
}

TEST(RouterInput, DropoutScalesWhatItKeeps) {
  constexpr int64_t kChannels = 100;
  const auto x = at::ones({20, kChannels}, at::kFloat);
  const auto eye = at::ones({kChannels, kChannels}, at::kFloat).triu().tril();
  const RouterInputNoise noise{.dropout = 0.25, .key = {.seed = 2, .purpose = NoisePurpose::kRouterJitter}};
  const auto dropped = router_logits(x, eye, {}, noise);
  const double share = dropped.eq(0).to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(share, 0.25, 0.03);
  EXPECT_NEAR(dropped.max().item<double>(), 1.0 / 0.75, 1e-6);
  EXPECT_TRUE(x.equal(at::ones({20, kChannels}, at::kFloat))) << "the experts' input";
  expect_gradients_match_differences([&](const Tensors& in) { return router_logits(in[0], in[1], {}, noise); },
                                     {random_tensor({4, 6}, 1), random_tensor({3, 6}, 2)}, 18);
  EXPECT_THROW(router_logits(x, eye, {}, {.jitter = 0.1, .dropout = 0.1}), Error);
}

}  // namespace
}  // namespace switchyard::ops
