// Published assignments of other systems, and derived ones, for every router.
#include <ATen/TensorOperators.h>
#include <ATen/ops/log.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <tuple>

#include "ops/assignment.h"
#include "ops/router.h"

namespace switchyard::ops {
namespace {

using testing::ElementsAreArray;
using Table = std::vector<std::vector<double>>;

at::Tensor table(const Table& rows) {
  auto result = at::zeros({static_cast<int64_t>(rows.size()), static_cast<int64_t>(rows[0].size())}, at::kDouble);
  for (size_t row = 0; row < rows.size(); ++row)
    for (size_t column = 0; column < rows[row].size(); ++column)
      result[static_cast<int64_t>(row)][static_cast<int64_t>(column)] = rows[row][column];
  return result;
}

// (token, expert) of every kept pair, by token, then expert.
std::vector<std::pair<int64_t, int64_t>> kept_pairs(const Dispatch& dispatch) {
  std::vector<std::pair<int64_t, int64_t>> pairs;
  int64_t row = 0;
  const auto num_rows = dispatch.rows_by_expert();
  for (size_t expert = 0; expert < num_rows.size(); ++expert)
    for (int64_t n = 0; n < num_rows[expert]; ++n, ++row)
      pairs.emplace_back(dispatch.token[row].item<int64_t>(), static_cast<int64_t>(expert));
  std::sort(pairs.begin(), pairs.end());
  return pairs;
}

// (token, expert, slot), sorted, of the assignment that route() would make.
using Slot = std::tuple<int64_t, int64_t, int64_t>;
std::vector<Slot> slots(const at::Tensor& logits, RouteOptions options) {
  const auto probability = at::softmax(logits, 1);
  const auto sorted = probability.sort(/*stable=*/true, 1, /*descending=*/true);
  const auto choice = std::get<1>(sorted).narrow(1, 0, options.num_selected_experts).contiguous();
  const auto assignment =
      assign_choices({choice, probability.gather(1, choice).contiguous()}, logits.size(1), nullptr, options);
  std::vector<Slot> result;
  for (size_t row = 0; row < assignment.expert.size(); ++row)
    result.emplace_back(assignment.token[static_cast<int64_t>(row)].item<int64_t>(), assignment.expert[row],
                        assignment.slot[row]);
  std::sort(result.begin(), result.end());
  return result;
}

std::vector<std::pair<int64_t, int64_t>> pairs_of(const std::vector<Slot>& slots) {
  std::vector<std::pair<int64_t, int64_t>> pairs;
  for (const auto& [token, expert, slot] : slots) pairs.emplace_back(token, expert);
  return pairs;
}

RouteOptions options_of(RouterKind router, int64_t num_selected_experts, int64_t group_size,
                        std::vector<int64_t> capacity, DropPriority priority = DropPriority::kChoice) {
  RouteOptions options;
  options.router = router;
  options.num_selected_experts = num_selected_experts;
  options.group_size = group_size;
  options.expert_capacity = std::move(capacity);
  options.drop_priority = priority;
  return options;
}

double number(const at::Tensor& scalar) { return scalar.item<double>(); }

// DeepSpeed TestTopkGate.test by probability and by position; Mesh's order is derived.
struct TopK {
  const char* name;
  Table logits;
  int64_t k, capacity;
  std::vector<Slot> by_probability, by_position, mesh;
};
const TopK kTopK[] = {
    {"A",
     {{0.11, 0.2, 0.1, 0.3}, {0.3, 0.4, 0.11, 0.1}, {0.11, 0.1, 0.6, 0.5}, {0.1, 0.11, 0.7, 0.8}},
     2,
     2,
     {{0, 1, 0}, {1, 0, 0}, {1, 1, 1}, {2, 2, 0}, {2, 3, 0}, {3, 2, 1}, {3, 3, 1}},
     {{0, 1, 0}, {0, 3, 0}, {1, 0, 0}, {1, 1, 1}, {2, 2, 0}, {2, 3, 1}, {3, 2, 1}},
     {{0, 1, 1}, {0, 3, 0}, {1, 0, 0}, {1, 1, 0}, {2, 2, 0}, {3, 2, 1}, {3, 3, 1}}},
    {"B",
     {{0.5858, 0.4801, 0.6269, 0.5397, 0.9722, 0.7034},
      {0.5445, 0.6332, 0.4519, 0.6308, 0.0519, 0.6450},
      {0.4874, 0.8110, 0.7467, 0.8474, 0.0277, 0.3068},
      {0.8570, 0.6714, 0.5310, 0.3274, 0.4836, 0.9892}},
     3,
     2,
     {{0, 2, 0}, {0, 4, 0}, {1, 1, 0}, {1, 3, 0}, {1, 5, 0}, {2, 1, 1}, {2, 2, 1}, {2, 3, 1}, {3, 0, 0}, {3, 5, 1}},
     {{0, 2, 0}, {0, 4, 0}, {0, 5, 0}, {1, 1, 0}, {1, 3, 0}, {1, 5, 1}, {2, 1, 1}, {2, 2, 1}, {2, 3, 1}, {3, 0, 0}},
     {{0, 2, 0}, {0, 4, 0}, {1, 1, 0}, {1, 3, 1}, {1, 5, 0}, {2, 1, 1}, {2, 2, 1}, {2, 3, 0}, {3, 0, 0}, {3, 5, 1}}},
    {"C",
     {{0.95, 0.85, 0.90, 0.80}, {0.70, 0.65, 0.75, 0.60}, {0.50, 0.55, 0.45, 0.40}, {0.35, 0.30, 0.25, 0.20}},
     2,
     4,
     {{0, 0, 0}, {0, 2, 0}, {1, 0, 1}, {1, 2, 1}, {2, 0, 2}, {2, 1, 0}, {3, 0, 3}, {3, 1, 1}},
     {{0, 0, 0}, {0, 2, 0}, {1, 0, 1}, {1, 2, 1}, {2, 0, 2}, {2, 1, 0}, {3, 0, 3}, {3, 1, 1}},
     {}}};

TEST(TopKFixtures, DeepSpeedAndMeshDropTheirOwnTokens) {
  for (const auto& fixture : kTopK) {
    SCOPED_TRACE(fixture.name);
    const auto logits = table(fixture.logits);
    const auto with = [&](DropPriority priority) {
      return options_of(RouterKind::kTopK, fixture.k, 4, {fixture.capacity}, priority);
    };
    // DeepSpeed numbers its slots in token order, whoever was preferred.
    EXPECT_EQ(pairs_of(slots(logits, with(DropPriority::kExpert))), pairs_of(fixture.by_probability));
    EXPECT_EQ(slots(logits, with(DropPriority::kToken)), fixture.by_position);
    if (!fixture.mesh.empty()) {
      EXPECT_EQ(slots(logits, with(DropPriority::kChoice)), fixture.mesh);
    }
    for (const auto& [priority, wanted] : {std::pair{DropPriority::kExpert, &fixture.by_probability},
                                           std::pair{DropPriority::kToken, &fixture.by_position}})
      for (const auto dtype : {at::kFloat, at::kDouble})
        EXPECT_EQ(kept_pairs(route(logits.to(dtype), {}, with(priority)).dispatch), pairs_of(*wanted));
  }
}

// Flaxformer routing_test.py: probabilities that are exact in bf16, and those of f32 weights.
const Table kTies = {
    {0.24609375, 0.25, 0.25390625, 0.251953125},          {0.2431640625, 0.24609375, 0.25390625, 0.2578125},
    {0.244140625, 0.2470703125, 0.255859375, 0.25390625}, {0.25, 0.25, 0.251953125, 0.25},
    {0.2470703125, 0.248046875, 0.2490234375, 0.2578125}, {0.2451171875, 0.248046875, 0.25390625, 0.25390625},
    {0.2451171875, 0.24609375, 0.25390625, 0.255859375},  {0.2431640625, 0.248046875, 0.255859375, 0.255859375}};
const Table kExact = {{0.246059, 0.249899, 0.253664, 0.250378}, {0.242870, 0.246202, 0.253651, 0.257277},
                      {0.243758, 0.247253, 0.256000, 0.252989}, {0.249286, 0.249605, 0.251533, 0.249575},
                      {0.246652, 0.247032, 0.248738, 0.257579}, {0.245182, 0.248245, 0.252622, 0.253951},
                      {0.244858, 0.246176, 0.253033, 0.255934}, {0.242864, 0.247251, 0.254412, 0.255472}};

// The balance loss with the fixture's own probabilities, whose rows sum to 1 only within bf16, and route()'s f; mean
// over groups of four.
double balance_of(const at::Tensor& p, RouteOptions options) {
  const int64_t groups = p.size(0) / 4;
  double sum = 0;
  options.expert_capacity = {options.expert_capacity.front()};
  for (int64_t group = 0; group < groups; ++group) {
    const auto rows = p.narrow(0, 4 * group, 4);
    const auto f = at::tensor(read_statistics(route(at::log(rows), {}, options).counts).expert_load) *
                   static_cast<double>(options.num_selected_experts);
    sum += (f * rows.mean(0)).sum().item<double>() * static_cast<double>(p.size(1));
  }
  return sum / static_cast<double>(groups);
}

TEST(FlaxformerFixtures, TopOneBatchPrioritised) {
  const auto options = options_of(RouterKind::kTopK, 1, 4, {2, 2}, DropPriority::kBatch);
  // (expert, slot) a token; a token without a slot is absent.
  EXPECT_EQ(slots(at::log(table(kTies)), options),
            (std::vector<Slot>{{0, 2, 1}, {1, 3, 0}, {2, 2, 0}, {4, 3, 0}, {5, 2, 1}, {6, 3, 1}, {7, 2, 0}}));
  EXPECT_EQ(slots(at::log(table(kExact)), options),
            (std::vector<Slot>{{0, 2, 1}, {1, 3, 0}, {2, 2, 0}, {4, 3, 0}, {6, 3, 1}}));
  // The published gates and loss, to bf16's digits.
  const auto routing = route(at::log(table(kTies)), {}, options);
  const auto gates = routing.gate;
  const double wanted[] = {0.25390625, 0.25585938, 0.25390625, 0.25585938, 0.2578125, 0.2578125, 0.25585938};
  for (int64_t row = 0; row < gates.numel(); ++row) EXPECT_NEAR(number(gates[row]), wanted[row], 1e-3) << row;
}

TEST(FlaxformerFixtures, TopTwoBatchPrioritised) {
  auto options = options_of(RouterKind::kTopK, 2, 4, {2, 2}, DropPriority::kBatch);
  options.load_balance_choices = LoadBalanceChoices::kAll;
  EXPECT_EQ(slots(at::log(table(kTies)), options),
            (std::vector<Slot>{
                {0, 2, 1}, {1, 3, 0}, {2, 2, 0}, {2, 3, 1}, {3, 0, 0}, {4, 3, 0}, {5, 2, 1}, {6, 3, 1}, {7, 2, 0}}));
  EXPECT_NEAR(balance_of(table(kTies), options), 2.0289307, 1e-6);
  // f counts both choices (T5X): its part of the loss, per token, is that of the same f.
  const auto exact = at::log(table(kExact)).narrow(0, 0, 4);
  options.expert_capacity = {2};
  EXPECT_NEAR(number(route(exact, {}, options).load_balance_loss), balance_of(table(kExact).narrow(0, 0, 4), options),
              1e-5);
}

TEST(FlaxformerFixtures, TopTwoWithOneSlot) {
  const auto p = table({{0.33203125, 0.330078125, 0.3359375},
                        {0.33203125, 0.3359375, 0.333984375},
                        {0.333984375, 0.33203125, 0.3359375},
                        {0.33203125, 0.3359375, 0.333984375},
                        {0.330078125, 0.341796875, 0.326171875},
                        {0.33203125, 0.328125, 0.3359375},
                        {0.33203125, 0.3359375, 0.333984375},
                        {0.330078125, 0.341796875, 0.328125}});
  auto options = options_of(RouterKind::kTopK, 2, 4, {1, 1}, DropPriority::kBatch);
  options.load_balance_choices = LoadBalanceChoices::kAll;
  const auto routing = route(at::log(p), {}, options);
  EXPECT_EQ(kept_pairs(routing.dispatch),
            (std::vector<std::pair<int64_t, int64_t>>{{0, 0}, {0, 2}, {1, 1}, {4, 0}, {4, 1}, {5, 2}}));
  EXPECT_NEAR(balance_of(p, options), 2.001709, 1e-6);
}

TEST(FlaxformerFixtures, PaddingTakesNoSlot) {
  const auto p = table({{.5, .5},
                        {.50390625, .498046875},
                        {.50390625, .498046875},
                        {.5, .5},
                        {.50390625, .498046875},
                        {.50390625, .498046875},
                        {.5, .5},
                        {.50390625, .494140625},
                        {.50390625, .498046875},
                        {.5, .5},
                        {.50390625, .494140625},
                        {.5, .5}});
  auto mask = at::zeros({12}, at::kBool);
  for (const int64_t real : {1, 2, 4, 5, 7, 8, 10}) mask[real] = true;
  const auto routing = route(at::log(p), mask, options_of(RouterKind::kTopK, 2, 6, {1, 1}, DropPriority::kBatch));
  EXPECT_EQ(kept_pairs(routing.dispatch), (std::vector<std::pair<int64_t, int64_t>>{{1, 0}, {1, 1}, {7, 0}, {7, 1}}));
}

TEST(FlaxformerFixtures, ExpertChoice) {
  const auto p = table({{.49609375, .50390625},
                        {.494140625, .50390625},
                        {.498046875, .50390625},
                        {.494140625, .50390625},
                        {.498046875, .50390625},
                        {.494140625, .50390625},
                        {.494140625, .5078125},
                        {.4921875, .5078125}});
  const auto options = options_of(RouterKind::kExpertChoice, 1, 4, {2, 2});
  const auto assignment = assign_experts_choice(p, nullptr, options);
  std::vector<Slot> got;
  for (size_t row = 0; row < assignment.expert.size(); ++row)
    got.emplace_back(assignment.token[static_cast<int64_t>(row)].item<int64_t>(), assignment.expert[row],
                     assignment.slot[row]);
  std::sort(got.begin(), got.end());
  EXPECT_EQ(
      got, (std::vector<Slot>{{0, 0, 1}, {0, 1, 0}, {1, 1, 1}, {2, 0, 0}, {4, 0, 0}, {5, 0, 1}, {6, 1, 0}, {7, 1, 1}}));
  EXPECT_EQ(number(route(at::log(p), {}, options).load_balance_loss), 0.0);
}

TEST(Derived, NoTokenLeftBehind) {
  const auto p = table({{.7, .2, .1}, {.6, .3, .1}, {.5, .2, .3}, {.4, .35, .25}, {.1, .8, .1}, {.2, .7, .1}});
  const auto kept = [&](int64_t stages) {
    return slots(at::log(p), options_of(RouterKind::kNoTokenLeftBehind, stages, 6, {2}));
  };
  EXPECT_EQ(kept(1), (std::vector<Slot>{{0, 0, 0}, {1, 0, 1}, {4, 1, 0}, {5, 1, 1}}));
  EXPECT_EQ(kept(2), (std::vector<Slot>{{0, 0, 0}, {1, 0, 1}, {2, 2, 0}, {4, 1, 0}, {5, 1, 1}}));
  EXPECT_EQ(kept(3), (std::vector<Slot>{{0, 0, 0}, {1, 0, 1}, {2, 2, 0}, {3, 2, 1}, {4, 1, 0}, {5, 1, 1}}));
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const auto routing = route(at::log(p).to(dtype), {}, options_of(RouterKind::kNoTokenLeftBehind, 3, 6, {2}));
    EXPECT_EQ(read_statistics(routing.counts).left_behind_fraction, 0.0);
    const double gates[] = {.7, .6, .8, .7, .3, .25};  // raw probabilities, expert by expert
    for (int64_t row = 0; row < 6; ++row) EXPECT_NEAR(number(routing.gate[row]), gates[row], 1e-6);
  }
}

// Mesh _top_2_gating: g / (g1 + g2 + 1e-9) before dropping; DeepSpeed divides by what is left.
TEST(Derived, GatesOfSeveralExperts) {
  const auto p = table({{.6, .3, .1}, {.5, .1, .4}, {.7, .2, .1}});
  auto options = options_of(RouterKind::kTopK, 2, 3, {2});
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const auto gates = [&](GateNormalization normalization) {
      options.gate_normalization = normalization;
      const auto routing = route(at::log(p).to(dtype), {}, options);
      std::vector<double> result;
      for (int64_t row = 0; row < routing.gate.numel(); ++row) result.push_back(number(routing.gate[row]));
      return result;
    };
    // Kept: expert 0 has tokens 0 and 1, expert 1 tokens 0 and 2, expert 2 token 1.
    EXPECT_THAT(gates(GateNormalization::kNone), testing::Pointwise(testing::DoubleNear(1e-6), {.6, .5, .3, .2, .4}));
    EXPECT_THAT(gates(GateNormalization::kBeforeDrop),
                testing::Pointwise(testing::DoubleNear(1e-6), {.6 / .9, .5 / .9, .3 / .9, .2 / .9, .4 / .9}));
    EXPECT_THAT(gates(GateNormalization::kAfterDrop),
                testing::Pointwise(testing::DoubleNear(1e-6), {.6 / .9, .5 / .9, .3 / .9, 1.0, .4 / .9}));
  }
}

TEST(Derived, SecondExpertPolicies) {
  const auto p = table({{.6, .3, .1}, {.9, .06, .04}, {.5, .15, .35}});
  auto options = options_of(RouterKind::kTopK, 2, 3, {3});
  options.second_expert_policy = SecondExpertPolicy::kThreshold;
  options.second_expert_threshold = 0.2;
  EXPECT_EQ(kept_pairs(route(at::log(p), {}, options).dispatch),
            (std::vector<std::pair<int64_t, int64_t>>{{0, 0}, {0, 1}, {1, 0}, {2, 0}, {2, 2}}));
  // Sampled: used with probability min(1, .06 / .2) = 0.3; the share over many tokens shows it.
  options.second_expert_policy = SecondExpertPolicy::kSampled;
  options.noise = {.seed = 3, .purpose = NoisePurpose::kExploration};
  options.group_size = 20000;
  options.expert_capacity = {20000};
  const auto many = table({{.9, .06, .04}}).expand({20000, 3}).contiguous();
  const auto second = kept_pairs(route(at::log(many), {}, options).dispatch).size() - 20000;
  EXPECT_NEAR(static_cast<double>(second) / 20000.0, 0.3, 0.015);
}

}  // namespace
}  // namespace switchyard::ops
