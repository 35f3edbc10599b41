#include "optim/adafactor.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/random.h"

namespace switchyard {
namespace {

at::Tensor random_tensor(at::IntArrayRef shape, uint64_t seed, double scale = 1.0) {
  NoiseStream noise({.seed = seed});
  auto tensor = at::zeros(shape, at::kFloat);
  float* values = tensor.mutable_data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i) values[i] = static_cast<float>(scale * (noise.uniform() - 0.4));
  return tensor;
}

std::vector<double> to_doubles(const at::Tensor& tensor) {
  const auto contiguous = tensor.to(at::kDouble).contiguous();
  return {contiguous.const_data_ptr<double>(), contiguous.const_data_ptr<double>() + contiguous.numel()};
}

void expect_all(const at::Tensor& tensor, std::vector<int64_t> shape, double value, double relative = 1e-6) {
  EXPECT_EQ(tensor.sizes(), at::IntArrayRef(shape));
  for (const double element : to_doubles(tensor)) EXPECT_NEAR(element, value, relative * std::abs(value));
}

// f32 means of squares over a row and over a whole matrix, whose ratios multiply: 2e-6 in what follows.
void expect_close(const std::vector<double>& actual, const std::vector<double>& expected, double relative,
                  double absolute, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (size_t i = 0; i < actual.size(); ++i)
    ASSERT_NEAR(actual[i], expected[i], relative * std::abs(expected[i]) + absolute) << what << " at " << i;
}

void expect_bit_equal(const at::Tensor& a, const at::Tensor& b, const std::string& what) {
  ASSERT_EQ(a.sizes(), b.sizes()) << what;
  EXPECT_EQ(to_doubles(a), to_doubles(b)) << what;
}

// T5X adafactor_test.py: parameters and gradients ones [3, 2], rate 0.1, one step done before.
OptimizerConfig published_config(int64_t min_dim_size_to_factor) {
  OptimizerConfig config;
  config.learning_rate = 0.1;
  config.schedule = "constant";
  config.min_dim_size_to_factor = min_dim_size_to_factor;
  return config;
}

TEST(Adafactor, MatchesT5xFactored) {
  const auto weights = at::ones({3, 2});
  Optimizer optimizer(published_config(0), {{"w", weights}});
  optimizer.load_state({{"w.v_row", at::full({2}, 0.9)}, {"w.v_col", at::full({3}, 0.1)}});
  optimizer.step_({at::ones({3, 2})}, /*step=*/2);
  const auto state = optimizer.state();
  ASSERT_EQ(state.size(), 2u);
  EXPECT_EQ(state[0].first, "w.v_row");
  EXPECT_EQ(state[1].first, "w.v_col");
  expect_all(state[0].second, {2}, 0.9574349);
  expect_all(state[1].second, {3}, 0.6169143);
  expect_all(weights, {3, 2}, 0.9);
}

TEST(Adafactor, MatchesT5xUnfactored) {
  const auto weights = at::ones({3, 2});
  Optimizer optimizer(published_config(128), {{"w", weights}});
  optimizer.load_state({{"w.v", at::full({3, 2}, 0.5)}});
  optimizer.step_({at::ones({3, 2})}, /*step=*/2);
  ASSERT_EQ(optimizer.state().size(), 1u);
  expect_all(optimizer.state()[0].second, {3, 2}, 0.787174);
  expect_all(weights, {3, 2}, 0.9);
}

TEST(Adafactor, MatchesT5xWithGlobalNormClip) {
  const auto weights = at::ones({3, 2});
  Optimizer optimizer(published_config(0), {{"w", weights}});
  optimizer.load_state({{"w.v_row", at::full({2}, 0.9)}, {"w.v_col", at::full({3}, 0.1)}});
  optimizer.step_({at::ones({3, 2})}, /*step=*/2, /*gradient_scale=*/1.0 / std::sqrt(6.0));
  expect_all(optimizer.state()[0].second, {2}, 0.478811);
  expect_all(optimizer.state()[1].second, {3}, 0.13829, 1e-5);  // five digits are published
  expect_all(weights, {3, 2}, 0.9);
}

// transformers 5.23.0, torch 2.13.0:
//   i = torch.arange(128 * 192, dtype=torch.float64)
//   p = Parameter((0.05 * cos(0.37 * i)).float().reshape(128, 192))
//   o = Adafactor([p], lr=0.01, relative_step=False, scale_parameter=True, warmup_init=False)
//   for t in (1, 2, 3): p.grad = (sin(0.011 * t * i + t) * exp(-(i % 192) / 40)).float().reshape(128, 192); o.step()
TEST(Adafactor, MatchesTransformers) {
  constexpr int64_t kRows = 128, kColumns = 192;
  const auto weights = at::zeros({kRows, kColumns});
  for (int64_t i = 0; i < kRows * kColumns; ++i)
    weights.mutable_data_ptr<float>()[i] = static_cast<float>(0.05 * std::cos(0.37 * static_cast<double>(i)));
  OptimizerConfig config;
  config.schedule = "constant";
  Optimizer optimizer(config, {{"w", weights}});
  for (int64_t step = 1; step <= 3; ++step) {
    const auto gradient = at::zeros({kRows, kColumns});
    for (int64_t i = 0; i < kRows * kColumns; ++i)
      gradient.mutable_data_ptr<float>()[i] =
          static_cast<float>(std::sin(0.011 * static_cast<double>(step * i) + static_cast<double>(step)) *
                             std::exp(-static_cast<double>(i % kColumns) / 40));
    optimizer.step_({gradient}, step);
  }
  const auto expect_values = [](const at::Tensor& tensor, const std::vector<std::pair<int64_t, double>>& expected) {
    const auto values = to_doubles(tensor);
    for (const auto& [index, value] : expected) EXPECT_NEAR(values[index], value, 2e-6 * std::abs(value)) << index;
  };
  expect_values(
      weights,
      {{0, 0.0493876711}, {1, 0.0460215807}, {191, 0.000755412679}, {5000, -0.044999972}, {24575, 0.027376147}});
  expect_values(optimizer.state()[0].second, {{0, 0.0515612513}, {77, 0.0587799847}, {127, 0.0644726232}});
  expect_values(optimizer.state()[1].second, {{0, 0.48631379}, {77, 0.0104844393}, {191, 3.45982298e-05}});
}

struct Shape {
  std::vector<int64_t> sizes;
  bool is_expert;
};
void PrintTo(const Shape& shape, std::ostream* out) {
  *out << at::IntArrayRef(shape.sizes) << (shape.is_expert ? " expert" : "");
}

// The paper's algorithm for one matrix, written out in f64 over scalars.
struct ScalarAdafactor {
  int64_t rows, columns;
  bool factored;
  std::vector<double> weights, row_moment, column_moment, v;

  void step(const std::vector<double>& g, int64_t t, double rate, double weight_decay) {
    const double beta = 1 - std::pow(static_cast<double>(t), -0.8);
    const auto size = static_cast<double>(rows * columns);
    std::vector<double> u(g.size());
    if (factored) {
      row_moment.resize(rows), column_moment.resize(columns);
      for (auto& moment : row_moment) moment *= beta;
      for (auto& moment : column_moment) moment *= beta;
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) {
          const double square = g[i * columns + j] * g[i * columns + j] + 1e-30;
          row_moment[i] += (1 - beta) * square / static_cast<double>(columns);
          column_moment[j] += (1 - beta) * square / static_cast<double>(rows);
        }
      double mean = 0;  // of either side: they agree when both began at zero
      for (const double moment : row_moment) mean += moment / static_cast<double>(rows);
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j)
          u[i * columns + j] = g[i * columns + j] / std::sqrt(row_moment[i] * column_moment[j] / mean);
    } else {
      v.resize(g.size());
      for (size_t k = 0; k < g.size(); ++k) {
        v[k] = beta * v[k] + (1 - beta) * (g[k] * g[k] + 1e-30);
        u[k] = g[k] / std::sqrt(v[k]);
      }
    }
    const double update_rms = std::sqrt(std::inner_product(u.begin(), u.end(), u.begin(), 0.0) / size);
    const double weight_rms =
        std::sqrt(std::inner_product(weights.begin(), weights.end(), weights.begin(), 0.0) / size);
    for (size_t k = 0; k < g.size(); ++k) {
      weights[k] *= 1 - rate * weight_decay;
      weights[k] -= rate * std::max(1e-3, weight_rms) * u[k] / std::max(1.0, update_rms);
    }
  }
};

class AdafactorShapes : public testing::TestWithParam<Shape> {};

TEST_P(AdafactorShapes, MatchesTheFormulaInDoubles) {
  const auto& [sizes, is_expert] = GetParam();
  const auto weights = random_tensor(sizes, 1, 0.3);
  const int64_t num_matrices = is_expert ? sizes[0] : 1, size = weights.numel() / num_matrices;
  const bool is_matrix = sizes.size() == (is_expert ? 3u : 2u);
  const int64_t rows = is_matrix ? sizes[sizes.size() - 2] : 1, columns = size / rows;
  std::vector<ScalarAdafactor> expected;
  for (int64_t index = 0; index < num_matrices; ++index)
    expected.push_back({rows,
                        columns,
                        std::min(rows, columns) >= 128,
                        to_doubles(weights.reshape({num_matrices, -1})[index]),
                        {},
                        {},
                        {}});
  OptimizerConfig config;
  config.learning_rate = 0.05;
  config.warmup_steps = 2;
  config.weight_decay = 0.1;
  Optimizer optimizer(config, {{"w", weights, is_expert, /*rate_scale=*/0.5}});
  const auto before = to_doubles(weights);
  for (int64_t step = 1; step <= 4; ++step) {
    const auto gradient = random_tensor(sizes, 10 + step, step == 3 ? 30.0 : 1e-3);  // the third meets the update clip
    optimizer.step_({gradient}, step, /*gradient_scale=*/0.25);
    for (int64_t index = 0; index < num_matrices; ++index)
      expected[index].step(to_doubles(gradient.reshape({num_matrices, -1})[index] * 0.25), step,
                           0.5 * 0.05 * std::sqrt(2.0 / std::max<double>(2.0, static_cast<double>(step))), 0.1);
  }
  for (int64_t index = 0; index < num_matrices; ++index)
    expect_close(to_doubles(weights.reshape({num_matrices, -1})[index]), expected[index].weights, 2e-6, 1e-7,
                 "weights");
  double largest_change = 0;
  const auto after = to_doubles(weights);
  for (size_t i = 0; i < before.size(); ++i) largest_change = std::max(largest_change, std::abs(before[i] - after[i]));
  EXPECT_GT(largest_change, 1e-4);
  const auto state = optimizer.state();
  if (expected[0].factored) {
    const bool rows_are_fewer = rows <= columns;
    ASSERT_EQ(state.size(), 2u);
    for (int64_t index = 0; index < num_matrices; ++index) {
      const auto& smaller = rows_are_fewer ? expected[index].row_moment : expected[index].column_moment;
      const auto& larger = rows_are_fewer ? expected[index].column_moment : expected[index].row_moment;
      expect_close(to_doubles(state[0].second.reshape({num_matrices, -1})[index]), smaller, 2e-6, 0, "v_row");
      expect_close(to_doubles(state[1].second.reshape({num_matrices, -1})[index]), larger, 2e-6, 0, "v_col");
    }
  } else {
    ASSERT_EQ(state.size(), 1u);
    EXPECT_EQ(state[0].second.sizes(), weights.sizes());
    for (int64_t index = 0; index < num_matrices; ++index)
      expect_close(to_doubles(state[0].second.reshape({num_matrices, -1})[index]), expected[index].v, 2e-6, 0, "v");
  }
}

// The same through plain ATen in f64: the fallback is held to the formula itself.
TEST_P(AdafactorShapes, KernelMatchesTheReference) {
  const auto& [sizes, is_expert] = GetParam();
  const auto weights = random_tensor(sizes, 1, 0.3);
  OptimizedParameter reference{"w", weights.to(at::kDouble), is_expert};
  OptimizerConfig config;
  config.weight_decay = 0.1;
  const auto slots = adafactor_slots(config, reference);
  Optimizer optimizer(config, {{"w", weights, is_expert}});
  for (int64_t step = 1; step <= 3; ++step) {
    const auto gradient = random_tensor(sizes, 10 + step);
    optimizer.step_({gradient}, step, 3.0);
    adafactor_reference_step_(config, reference, slots, gradient, step, 3.0);
  }
  expect_close(to_doubles(weights), to_doubles(reference.tensor), 2e-6, 1e-7, "weights");
  for (size_t slot = 0; slot < slots.size(); ++slot)
    expect_close(to_doubles(optimizer.state()[slot].second), to_doubles(slots[slot].second), 2e-6, 0,
                 slots[slot].first);
}

INSTANTIATE_TEST_SUITE_P(Shapes, AdafactorShapes,
                         testing::Values(Shape{{1}, false}, Shape{{7}, false}, Shape{{5, 3}, false},
                                         Shape{{127, 300}, false}, Shape{{128, 128}, false}, Shape{{129, 301}, false},
                                         Shape{{301, 129}, false}, Shape{{1111, 515}, false}, Shape{{4, 9}, true},
                                         Shape{{3, 20, 30}, true}, Shape{{3, 130, 140}, true},
                                         Shape{{3, 140, 130}, true}, Shape{{2, 800, 700}, true}));

TEST(Adafactor, ExpertsDoNotInfluenceEachOther) {
  const auto together = random_tensor({2, 128, 130}, 5);
  const auto alone = together[1].clone();
  Optimizer both({}, {{"experts", together, true}}), one({}, {{"expert", alone}});
  for (int64_t step = 1; step <= 3; ++step) {
    const auto gradient = random_tensor({2, 128, 130}, 50 + step);
    gradient[0].mul_(1e6);
    both.step_({gradient}, step);
    one.step_({gradient[1]}, step);
  }
  expect_bit_equal(together[1], alone, "second expert");
}

TEST(Adafactor, AnIdleExpertKeepsItsWeightsAndRecovers) {
  const auto weights = random_tensor({2, 128, 128}, 5);
  const auto idle = weights[0].clone();
  Optimizer optimizer({}, {{"experts", weights, true}});
  for (int64_t step = 1; step <= 3; ++step) {
    const auto gradient = random_tensor({2, 128, 128}, 60 + step);
    gradient[0].zero_();
    optimizer.step_({gradient}, step);
  }
  expect_bit_equal(weights[0], idle, "idle expert");
  for (const double moment : to_doubles(optimizer.state()[0].second[0])) EXPECT_NEAR(moment, 1e-30, 1e-35);
  auto gradient = at::zeros({2, 128, 128});
  gradient[0][3][5].fill_(1e-12);  // one element next to rows and columns of zeros: factors near the ends of f32
  optimizer.step_({gradient}, 4);
  for (const double value : to_doubles(weights)) ASSERT_TRUE(std::isfinite(value));
  const double moved = std::abs(to_doubles(weights[0][3][5])[0] - to_doubles(idle[3][5])[0]);
  EXPECT_GT(moved, 1e-4);
  EXPECT_LT(moved, 1.0);
}

TEST(Adafactor, IsBitEqualForAnyNumberOfThreads) {
  const std::vector<std::vector<int64_t>> shapes = {{900, 700}, {700, 900}, {5, 200, 150}, {300}, {600000}};
  const int threads = omp_get_max_threads();
  std::vector<std::vector<at::Tensor>> results;
  for (const int count : {1, 2, 3}) {
    omp_set_num_threads(count);
    std::vector<OptimizedParameter> parameters;
    for (size_t index = 0; index < shapes.size(); ++index)
      parameters.push_back({join("w", index), random_tensor(shapes[index], index), shapes[index].size() == 3});
    Optimizer optimizer({}, parameters);
    for (int64_t step = 1; step <= 2; ++step) {
      std::vector<at::Tensor> gradients;
      for (size_t index = 0; index < shapes.size(); ++index)
        gradients.push_back(random_tensor(shapes[index], 100 * step + index));
      optimizer.step_(gradients, step);
    }
    results.emplace_back();
    for (const auto& parameter : parameters) results.back().push_back(parameter.tensor);
    for (const auto& [name, slot] : optimizer.state()) results.back().push_back(slot);
  }
  omp_set_num_threads(threads);
  for (size_t index = 0; index < results[0].size(); ++index) {
    expect_bit_equal(results[0][index], results[1][index], join("2 threads, tensor ", index));
    expect_bit_equal(results[0][index], results[2][index], join("3 threads, tensor ", index));
  }
}

// As products leave them: bf16, and q, k and v in one matrix.
TEST(Adafactor, GradientsInBfloat16AreReadAsTheyAre) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{130, 141}, {900, 700}, {3, 140, 150}, {77}, {9, 20}}) {
    const auto a = random_tensor(shape, 4), b = a.clone(), narrow = random_tensor(shape, 3).to(at::kBFloat16);
    Optimizer first({}, {{"w", a, shape.size() == 3}}), second({}, {{"w", b, shape.size() == 3}});
    const auto reading = first.read({narrow}), wide = second.read({narrow.to(at::kFloat)});
    EXPECT_EQ(reading.square_sums, wide.square_sums);
    EXPECT_NEAR(reading.square_sums[0], narrow.to(at::kDouble).square().sum().item<double>(),
                1e-5 * reading.square_sums[0]);
    first.step_(reading, 1, 0.5);
    second.step_(wide, 1, 0.5);
    expect_bit_equal(a, b, "weights");
  }
}

TEST(Optimizer, CopiesHoldTheNewValuesRounded) {
  for (const std::string name : {"adafactor", "adamw", "muon"}) {
    OptimizerConfig config;
    config.name = name;
    const auto joined = at::zeros({2 * 140, 130}).to(at::kBFloat16), strided = at::zeros({5, 200, 64});
    std::vector<OptimizedParameter> parameters = {{"a", random_tensor({140, 130}, 1)},
                                                  {"b", random_tensor({140, 130}, 2)},
                                                  {"c", random_tensor({5, 100, 64}, 3), /*is_expert=*/true},
                                                  {"d", random_tensor({33}, 4)}};
    parameters[0].copy = joined.narrow(0, 0, 140);
    parameters[1].copy = joined.narrow(0, 140, 140);
    parameters[2].copy = strided.narrow(1, 50, 100);
    parameters[3].copy = at::zeros({33}).to(at::kBFloat16);
    parameters[0].is_hidden_matrix = true;
    Optimizer optimizer(config, parameters);
    for (int64_t step = 1; step <= 2; ++step) {
      optimizer.step_({random_tensor({140, 130}, 5), random_tensor({140, 130}, 6), random_tensor({5, 100, 64}, 7),
                       random_tensor({33}, 8)},
                      step);
      for (const auto& parameter : parameters)
        expect_bit_equal(parameter.tensor.to(parameter.copy.scalar_type()), parameter.copy, name + parameter.name);
    }
    EXPECT_EQ(strided.narrow(1, 0, 50).abs().sum().item<double>(), 0.0);
  }
}

// An update knows the size of the weights that it wrote; others' changes are noticed.
TEST(Adafactor, SizeOfWeightsIsKnownOrRead) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{130, 141}, {900, 700}, {3, 140, 150}, {77}}) {
    const auto kept = random_tensor(shape, 4), touched = kept.clone();
    Optimizer first({}, {{"w", kept, shape.size() == 3}}), second({}, {{"w", touched, shape.size() == 3}});
    for (int64_t step = 1; step <= 3; ++step) {
      const auto gradient = random_tensor(shape, 10 + step);
      touched.mul_(1.0);
      first.step_({gradient}, step);
      second.step_({gradient}, step);
      expect_bit_equal(kept, touched, join("step ", step));
    }
    kept.mul_(3.0);
    Optimizer fresh({}, {{"w", touched.copy_(kept), shape.size() == 3}});
    fresh.load_state(first.state());
    first.step_({random_tensor(shape, 20)}, 4);
    fresh.step_({random_tensor(shape, 20)}, 4);
    expect_bit_equal(kept, touched, "after a change from outside");
  }
}

TEST(Adafactor, AnExpertWithoutGradientKeepsItsWeights) {
  OptimizerConfig config;
  const auto weights = random_tensor({3, 140, 150}, 1), before = weights.clone();
  auto gradient = random_tensor({3, 140, 150}, 2);
  gradient[1].zero_();
  Optimizer optimizer(config, {{"w", weights, /*is_expert=*/true}});
  for (int64_t step = 1; step <= 2; ++step) optimizer.step_({gradient}, step);
  expect_bit_equal(weights[1], before[1], "the idle expert");
  EXPECT_GT((weights[0] - before[0]).abs().max().item<double>(), 0.0);
  const auto one = before[2].clone();
  Optimizer alone(config, {{"w", one}});
  for (int64_t step = 1; step <= 2; ++step) alone.step_({gradient[2]}, step);
  expect_bit_equal(weights[2], one, "its neighbour");
  config.weight_decay = 0.5;
  Optimizer decaying(config, {{"w", weights, /*is_expert=*/true}});
  decaying.step_({gradient}, 1);
  expect_bit_equal(weights[1], before[1] * static_cast<float>(1.0 - learning_rate(config, 1) * 0.5), "with decay");
}

TEST(Adafactor, StridedGradientEqualsItsCopy) {
  const auto strided = random_tensor({140, 130}, 3).t();
  ASSERT_FALSE(strided.is_contiguous());
  const auto a = random_tensor({130, 140}, 4), b = a.clone();
  Optimizer first({}, {{"w", a}}), second({}, {{"w", b}});
  first.step_({strided}, 1);
  second.step_({strided.contiguous()}, 1);
  expect_bit_equal(a, b, "weights");
}

TEST(Optimizer, ContinuesBitEqualFromItsState) {
  for (const std::string name : {"adafactor", "adamw"}) {
    OptimizerConfig config;
    config.name = name;
    const auto weights = random_tensor({130, 140}, 1), small = random_tensor({9}, 2);
    Optimizer optimizer(config, {{"w", weights}, {"b", small}});
    const auto gradient = [](int64_t step) {
      return std::vector{random_tensor({130, 140}, 10 + step), random_tensor({9}, 20 + step)};
    };
    for (int64_t step = 1; step <= 2; ++step) optimizer.step_(gradient(step), step);
    SlotTensors saved;
    for (const auto& [slot, tensor] : optimizer.state()) saved.emplace_back(slot, tensor.clone());
    const auto resumed_weights = weights.clone(), resumed_small = small.clone();
    Optimizer resumed(config, {{"w", resumed_weights}, {"b", resumed_small}});
    resumed.load_state(saved);
    optimizer.step_(gradient(3), 3);
    resumed.step_(gradient(3), 3);
    expect_bit_equal(weights, resumed_weights, name);
    expect_bit_equal(small, resumed_small, name);
  }
}

TEST(Optimizer, RefusesAForeignStateAndStaysAsItWas) {
  Optimizer optimizer({}, {{"w", at::ones({128, 130})}, {"b", at::ones({4})}});
  const auto row = at::ones({128}), column = at::ones({130});
  try {
    optimizer.load_state({{"w.v_row", row}, {"w.v_col", column}});
    FAIL() << "b.v is missing";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("b.v is missing"));
  }
  try {
    optimizer.load_state({{"w.v_row", row}, {"w.v_col", at::ones({131})}, {"b.v", at::ones({4})}});
    FAIL() << "w.v_col has a wrong shape";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(),
                testing::AllOf(testing::HasSubstr("w.v_col"), testing::HasSubstr("131"), testing::HasSubstr("130")));
  }
  for (const auto& [name, slot] : optimizer.state()) expect_all(slot, slot.sizes().vec(), 0.0);
}

TEST(Optimizer, RefusesGradientsThatDoNotFit) {
  Optimizer optimizer({}, {{"w", at::ones({3, 2})}});
  EXPECT_THROW(optimizer.step_(std::vector<at::Tensor>{}, 1), Error);
  EXPECT_THROW(optimizer.step_({at::ones({2, 3})}, 1), Error);
  EXPECT_THROW(optimizer.step_({at::ones({3, 2})}, 0), Error);
}

TEST(Optimizer, AnUndefinedGradientCountsAsZeros) {
  for (const std::string name : {"adafactor", "adamw"}) {
    OptimizerConfig config;
    config.name = name;
    const auto a = at::ones({3, 2}), b = at::ones({3, 2});
    Optimizer first(config, {{"w", a}}), second(config, {{"w", b}});
    first.step_({at::ones({3, 2})}, 1);
    second.step_({at::ones({3, 2})}, 1);
    first.step_({at::Tensor()}, 2);
    second.step_({at::zeros({3, 2})}, 2);
    expect_bit_equal(a, b, name);
    expect_bit_equal(first.state()[0].second, second.state()[0].second, name);
  }
}

}  // namespace
}  // namespace switchyard
