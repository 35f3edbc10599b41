#include "parallel/update_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "base/error.h"
#include "testing/model.h"

namespace switchyard {
namespace {

std::vector<ParameterSpec> specs_of_six_experts() {
  auto config = test::tiny_model();
  config.routing.num_experts = 6;
  config.routing.selection_bias_rate = 0.01;
  return parameter_specs(config);
}

// All layouts of up to eight ranks.
std::vector<Layout> layouts() {
  std::vector<Layout> list;
  for (const int64_t ranks : {1, 2, 3, 4, 6, 8})
    for (int64_t data = 1; data <= ranks; ++data)
      for (int64_t expert = 1; expert <= ranks; ++expert)
        if (ranks % (data * expert) == 0) list.push_back({data, expert, ranks / data / expert});
  return list;
}

int64_t numel(const ParameterSpec& spec, const UpdateUnit& unit) {
  const auto shape = unit_shape(spec, unit);
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

TEST(UpdatePlan, EveryValueHasOneOwnerThatHoldsIt) {
  const auto specs = specs_of_six_experts();
  for (const auto& layout : layouts()) {
    const auto plan = update_plan(specs, layout);
    std::map<size_t, int64_t> covered;
    for (const auto& unit : plan.units) {
      EXPECT_TRUE(plan.is_held(unit, unit.owner));
      EXPECT_TRUE(plan.contributes(unit, unit.owner));
      covered[unit.parameter] += numel(specs[unit.parameter], unit);
    }
    for (size_t parameter = 0; parameter < specs.size(); ++parameter)
      EXPECT_EQ(covered[parameter], specs[parameter].is_buffer() ? 0 : specs[parameter].numel());
  }
}

// A unit's gradient is the sum over the parts of the batch, of each part of it once.
TEST(UpdatePlan, GradientsCountOnceForEachPartOfTheBatch) {
  const auto specs = specs_of_six_experts();
  for (const auto& layout : layouts()) {
    const auto plan = update_plan(specs, layout);
    for (const auto& unit : plan.units) {
      const auto& spec = specs[unit.parameter];
      int64_t contributed = 0, holders = 0;
      for (int64_t rank = 0; rank < layout.num_ranks(); ++rank) {
        if (plan.contributes(unit, rank)) contributed += plan.held_numel(unit, rank);
        holders += plan.is_held(unit, rank) ? 1 : 0;
      }
      const int64_t copies = spec.is_expert() ? holders / layout.tensor : layout.data * layout.expert;
      EXPECT_EQ(contributed, copies * numel(spec, unit)) << spec.name;
    }
  }
}

TEST(UpdatePlan, OwnersHaveLikeAmounts) {
  auto config = test::tiny_model();
  config.num_encoder_layers = config.num_decoder_layers = 8;
  const auto specs = parameter_specs(config);
  const auto plan = update_plan(specs, {.data = 4});
  std::vector<int64_t> owned(4);
  for (const auto& unit : plan.units) owned[static_cast<size_t>(unit.owner)] += numel(specs[unit.parameter], unit);
  const auto [least, most] = std::minmax_element(owned.begin(), owned.end());
  EXPECT_LT(static_cast<double>(*most), 1.1 * static_cast<double>(*least));
}

}  // namespace
}  // namespace switchyard
