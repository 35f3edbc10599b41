// The worked examples of docs/extending.md: each does what the guide says, and has the test that the guide asks for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/config.h"
#include "examples/extending/largest_command.h"
#include "examples/extending/npy_tensors.h"
#include "examples/extending/restarts.h"
#include "examples/extending/round_robin.h"
#include "examples/extending/squared_relu.h"
#include "ops/backend.h"
#include "ops/gradient_check.h"
#include "tasks/task.h"
#include "testing/errors.h"
#include "testing/scratch_folder.h"

namespace switchyard::examples {
namespace {

using testing::HasSubstr;

// Awkward sizes: one token, a group that experts do not divide, more experts than tokens; capacity binds in two.
TEST(ExtendingRouter, RoundRobinIsEvenAndKeepsToCapacity) {
  struct Case {
    int64_t tokens, group_size, num_experts, capacity;
  };
  for (const auto& [tokens, group_size, num_experts, capacity] :
       {Case{1, 1, 1, 1}, Case{10, 10, 4, 2}, Case{7, 7, 16, 1}, Case{12, 6, 4, 1}}) {
    const std::vector<int64_t> capacities(static_cast<size_t>(tokens / group_size), capacity);
    const auto routing =
        route_round_robin(tokens, num_experts, {}, {.group_size = group_size, .expert_capacity = capacities});
    for (int64_t token = 0; token < tokens; ++token) {
      const int64_t place = token % group_size;
      const int64_t wanted = place / num_experts < capacity ? place % num_experts : -1;
      EXPECT_EQ(routing.expert_index[token].item<int64_t>(), wanted) << "token " << token << " of " << tokens;
    }
  }
}

TEST(ExtendingOp, KernelRunsAndMatchesItsPlainForm) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const auto& shape : std::vector<std::vector<int64_t>>{{1}, {3, 17}, {0, 4}}) {
      const auto before = ops::kernel_choices(ops::Kernel::kElements).fused;
      const auto x = test::random_tensor(shape, 7, dtype);
      test::expect_same_as_f64([](const test::Tensors& in) { return squared_relu(in[0]); },
                               [](const test::Tensors& in) { return squared_relu_reference(in[0]); }, {x},
                               test::tolerance_of(dtype, 1));
      EXPECT_EQ(ops::kernel_choices(ops::Kernel::kElements).fused, before + 1);
    }
}

TEST(ExtendingOp, GradientMatchesDifferences) {
  test::expect_gradients_match_differences([](const test::Tensors& in) { return squared_relu(in[0]); },
                                           {test::random_tensor({5, 3}, 3)});
}

TEST(ExtendingTask, TemplateAndMetrics) {
  const auto task = find_task(std::string(std::getenv("SWITCHYARD_SOURCE")) + "/examples/extending/emotions.toml");
  EXPECT_EQ(task.name, "emotions");
  EXPECT_EQ(task.labels, (std::vector<std::string>{"sad", "calm", "glad"}));
}

TEST(ExtendingRunKey, HasADefaultAPlaceInErrorsAndALineOfHelp) {
  const auto read = [](const std::string& text) {
    RestartConfig config;
    read_section(config, parse_toml("[optimizer]\n" + text, "run.toml"), "optimizer");
    validate(config);
    return config;
  };
  EXPECT_EQ(read("").cycle_steps, 0);
  const auto config = read("cycle_steps = 4\n");
  EXPECT_DOUBLE_EQ(restart_factor(config, 1), 1.0);
  EXPECT_DOUBLE_EQ(restart_factor(config, 3), 0.55);
  EXPECT_DOUBLE_EQ(restart_factor(config, 5), 1.0);
  EXPECT_THAT(test::error_of([&] { read("cycle_step = 4\n"); }), HasSubstr("cycle_steps"));
  EXPECT_THAT(test::error_of([&] { read("cycle_steps = -1\n"); }), HasSubstr("optimizer.cycle_steps = -1"));
  EXPECT_THAT(describe_fields<RestartConfig>("optimizer"), HasSubstr("after which the rate begins anew"));
}

std::string npy(const std::string& shape, const std::vector<float>& values) {
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + shape + "), }";
  header.resize(117, ' ');
  header += '\n';
  return std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(header.size()) + '\0' + header +
         std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

TEST(ExtendingFormat, ReadsArraysAndRefusesThemCutShortAnywhere) {
  const test::ScratchFolder folder;
  const auto whole = npy("2, 3", {1, 2, 3, 4, 5, 6});
  folder.write("wi.npy", whole);
  const auto tensors = list_npy(folder.path());
  const auto wi = read_tensor(tensors.at("wi"), at::kDouble);
  EXPECT_EQ(wi.sizes().vec(), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(wi[1][2].item<double>(), 6.0);
  for (size_t length = 0; length < whole.size(); ++length) {
    folder.write("wi.npy", whole.substr(0, length));
    EXPECT_THROW(list_npy(folder.path()), Error) << length << " bytes kept";
  }
  folder.write("wi.npy", npy("999999999999, 999999999999", {}));
  EXPECT_THAT(test::error_of([&] { list_npy(folder.path()); }), HasSubstr("wi.npy: too many elements"));
}

TEST(ExtendingCommand, PrintsOneJsonDocument) {
  CLI::App app;
  add_largest(app);
  testing::internal::CaptureStdout();
  app.parse("largest switch-base-8 --count 1 --json");
  EXPECT_EQ(testing::internal::GetCapturedStdout(),
            "{\"largest\":[{\"name\":\"shared.weight\",\"parameters\":24674304}]}\n");
  EXPECT_THROW(app.parse("largest switch-base-8 --count 0"), CLI::ValidationError);
}

}  // namespace
}  // namespace switchyard::examples
