#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/config.h"
#include "optim/optimizer.h"

namespace switchyard {
namespace {

OptimizerConfig scheduled(const std::string& schedule) {
  OptimizerConfig config;
  config.schedule = schedule;
  return config;
}

TEST(LearningRate, InverseSqrtIsT5s) {  // 1 / sqrt(max(step, 10000))
  const OptimizerConfig config;
  for (const int64_t step : {1, 2, 9999, 10000, 10001, 40000, 524288})
    EXPECT_DOUBLE_EQ(learning_rate(config, step), 1.0 / std::sqrt(static_cast<double>(std::max<int64_t>(step, 10000))))
        << step;
}

TEST(LearningRate, LinearWarmupRampsAnySchedule) {
  for (const std::string name : {"inverse_sqrt", "constant", "linear", "cosine", "trapezoid"}) {
    auto config = scheduled(name);
    config.linear_warmup_steps = 4;
    config.decay_steps = 10;
    config.cooldown_fraction = 0.5;
    EXPECT_DOUBLE_EQ(learning_rate(config, 1), 0.0025) << name;
    EXPECT_DOUBLE_EQ(learning_rate(config, 3), 0.0075) << name;
    EXPECT_DOUBLE_EQ(learning_rate(config, 4), 0.01) << name;
  }
}

TEST(LearningRate, LinearAndCosineReachTheirFinalFraction) {
  auto linear = scheduled("linear"), cosine = scheduled("cosine");
  for (auto* config : {&linear, &cosine}) {
    config->decay_steps = 110;
    config->linear_warmup_steps = 10;
    config->final_fraction = 0.2;
    EXPECT_DOUBLE_EQ(learning_rate(*config, 10), 0.01);
    EXPECT_NEAR(learning_rate(*config, 60), 0.006, 1e-12);  // half way, both are in the middle
    EXPECT_DOUBLE_EQ(learning_rate(*config, 110), 0.002);
    EXPECT_DOUBLE_EQ(learning_rate(*config, 5000), 0.002);
  }
  EXPECT_NEAR(learning_rate(linear, 35), 0.01 * (0.2 + 0.8 * 0.75), 1e-12);
  EXPECT_NEAR(learning_rate(cosine, 35), 0.01 * (0.2 + 0.8 * (0.5 + std::sqrt(0.125))), 1e-12);
  linear.decay_steps = 0;
  EXPECT_THROW(learning_rate(linear, 1), Error);
}

TEST(LearningRate, TrapezoidIsFlatAndThenFallsInALine) {
  auto config = scheduled("trapezoid");
  config.decay_steps = 1000;
  config.linear_warmup_steps = 10;
  config.cooldown_fraction = 0.2;
  EXPECT_DOUBLE_EQ(learning_rate(config, 5), 0.005);
  EXPECT_DOUBLE_EQ(learning_rate(config, 10), 0.01);
  EXPECT_DOUBLE_EQ(learning_rate(config, 800), 0.01);
  EXPECT_NEAR(learning_rate(config, 900), 0.005, 1e-15);
  EXPECT_DOUBLE_EQ(learning_rate(config, 1000), 0.0);
  EXPECT_DOUBLE_EQ(learning_rate(config, 2000), 0.0);
  config.final_fraction = 0.1;
  EXPECT_NEAR(learning_rate(config, 900), 0.0055, 1e-15);
  config.decay_steps = 0;
  EXPECT_THROW(learning_rate(config, 1), Error);
}

TEST(OptimizerConfig, RefusesWhatItCannotMean) {
  EXPECT_NO_THROW(validate(OptimizerConfig{}));
  const std::pair<const char*, std::function<void(OptimizerConfig&)>> cases[] = {
      {"optimizer.name", [](auto& config) { config.name = "adafacto"; }},
      {"optimizer.schedule", [](auto& config) { config.schedule = "exponential"; }},
      {"optimizer.learning_rate", [](auto& config) { config.learning_rate = -1; }},
      {"optimizer.learning_rate", [](auto& config) { config.learning_rate = NAN; }},
      {"optimizer.beta2", [](auto& config) { config.beta2 = 1.0; }},
      {"optimizer.epsilon1", [](auto& config) { config.epsilon1 = 0.0; }},
      {"optimizer.final_fraction", [](auto& config) { config.final_fraction = 1.5; }},
  };
  for (const auto& [key, spoil] : cases) {
    OptimizerConfig config;
    spoil(config);
    try {
      validate(config);
      FAIL() << key;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(key));
    }
  }
}

TEST(OptimizerConfig, ReadsItsSection) {
  OptimizerConfig config;
  read_section(config,
               parse_toml("[optimizer]\nname = \"adamw\"\nwarmup_steps = 7\nscale_by_parameter = false\n", "run.toml"),
               "optimizer");
  EXPECT_EQ(config.name, "adamw");
  EXPECT_EQ(config.warmup_steps, 7);
  EXPECT_FALSE(config.scale_by_parameter);
}

}  // namespace
}  // namespace switchyard
