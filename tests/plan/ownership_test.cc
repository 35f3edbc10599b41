#include "plan/ownership.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "parallel/update_plan.h"
#include "plan/models.h"

namespace switchyard {
namespace {

class UnitsOf : public testing::TestWithParam<Layout> {};

TEST_P(UnitsOf, OwnsEveryTrainedValueOnce) {
  for (const int64_t num_experts : {5, 2}) {
    auto config = awkward_model();
    config.routing.num_experts = num_experts;
    const auto specs = parameter_specs(config);
    std::map<size_t, int64_t> owned;
    for (const auto& unit : plan_units(specs, GetParam()))
      owned[unit.spec] += specs[unit.spec].is_expert() ? specs[unit.spec].numel() / num_experts * unit.experts.size()
                                                       : specs[unit.spec].numel();
    for (size_t number = 0; number < specs.size(); ++number)
      EXPECT_EQ(owned[number], specs[number].numel()) << specs[number].name;
  }
}

TEST_P(UnitsOf, AreThoseOfTraining) {
  const auto specs = parameter_specs(awkward_model());
  const auto units = plan_units(specs, GetParam());
  const auto trained = update_plan(specs, GetParam());
  ASSERT_EQ(units.size(), trained.units.size());
  for (size_t n = 0; n < units.size(); ++n) {
    EXPECT_EQ(units[n].spec, trained.units[n].parameter);
    EXPECT_EQ(units[n].experts, trained.units[n].experts);
    EXPECT_EQ(units[n].owner, trained.units[n].owner) << specs[units[n].spec].name;
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, UnitsOf,
                         testing::Values(Layout{}, Layout{3, 1, 1}, Layout{1, 2, 1}, Layout{1, 1, 2}, Layout{2, 2, 2},
                                         Layout{1, 5, 1}, Layout{1, 8, 1}, Layout{2, 7, 3}, Layout{1, 1, 5}),
                         [](const auto& named) {
                           return std::to_string(named.param.data) + "x" + std::to_string(named.param.expert) + "x" +
                                  std::to_string(named.param.tensor);
                         });

TEST(PlanUnits, BalancesOwnersOfEqualMatrices) {
  Workload workload;
  workload.model = preset("switch-base-8");
  const auto specs = parameter_specs(workload.model);
  std::vector<int64_t> owned(4, 0);
  for (const auto& unit : plan_units(specs, {.data = 4}))
    owned[static_cast<size_t>(unit.owner)] +=
        specs[unit.spec].is_expert() ? specs[unit.spec].numel() / 8 * unit.experts.size() : specs[unit.spec].numel();
  EXPECT_LT(*std::max_element(owned.begin(), owned.end()),
            1.05 * static_cast<double>(*std::min_element(owned.begin(), owned.end())));
}

}  // namespace
}  // namespace switchyard
