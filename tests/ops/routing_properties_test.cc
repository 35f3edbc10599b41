// What holds for every router, over random shapes, in f64 and f32.
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

}  // namespace
}  // namespace switchyard::ops
