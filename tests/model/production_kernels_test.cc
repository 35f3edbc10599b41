// The whole model at sizes that the fast products take, multiples of 64, against the plain form in f64: loss, the
// gradient of every parameter, and decoding step by step. From one row, over the eight that go unpacked, to more than a
// block.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn_like.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/random.h"
#include "model/decoder_cache.h"
#include "model/loss.h"
#include "model/transformer.h"
#include "ops/backend.h"
#include "ops/cross_entropy.h"
#include "testing/model.h"

namespace switchyard {
namespace {

ModelConfig fast_config(bool gated) {
  auto config = test::fast_tiny_model();
  config.gated = gated;
  config.activation = gated ? Activation::kGeluNew : Activation::kRelu;
  config.tie_output = !gated;
  config.routing.router_z_loss_coef = 0.1;
  config.routing.load_balance_loss_coef = 0.3;
  return config;
}

// Weights that bf16 holds exactly, so that every dtype computes the same model.
ModelWeights random_weights(const ModelConfig& config, uint64_t seed) {
  auto weights = initialize(config, seed);
  for (auto& [spec, tensor] : list_parameters(config, weights)) {
    if (spec.shape.size() == 1) *tensor = *tensor + 0.1 * at::randn_like(*tensor);
    *tensor = tensor->to(at::kBFloat16).to(at::kFloat);
  }
  return weights;
}

struct Sizes {
  int64_t batch, encoder_length, decoder_length;
};
// Rows of the encoder's and the decoder's products: 1 to 9, and 65.
constexpr Sizes kSizes[] = {{1, 1, 2}, {1, 3, 4}, {1, 5, 6}, {1, 7, 8}, {3, 3, 3}, {5, 13, 13}};

// The same ids in every run and order of tests: now and then a hidden unit lies so near 0 that f32 and f64 see it on
// different sides of ReLU, and these do not.
LossInput random_input(const Sizes& sizes, int64_t vocab_size) {
  NoiseStream noise({.seed = 11, .purpose = NoisePurpose::kShuffle}, static_cast<uint64_t>(sizes.encoder_length));
  const auto ids = [&](int64_t length) {
    auto result = at::empty({sizes.batch, length}, at::kLong);
    auto* id = result.mutable_data_ptr<int64_t>();
    for (int64_t n = 0; n < result.numel(); ++n)
      id[n] = 3 + static_cast<int64_t>(noise.below(static_cast<uint64_t>(vocab_size - 3)));
    return result;
  };
  const auto labels = ids(sizes.decoder_length);
  return {{ids(sizes.encoder_length)}, {shift_right(labels)}, labels};
}

// Error of a chain of roundings to `dtype`, each independent of the others, relative to a tensor's norm. Sums are made
// in f32 or wider, so that a bf16 model rounds to bf16 once an operation.
double tolerance(at::ScalarType dtype, int64_t roundings) {
  const double unit = dtype == at::kBFloat16 ? 0x1p-9 : 0x1p-24;
  return 4.0 * unit * std::sqrt(static_cast<double>(roundings));
}
constexpr int64_t kBlockRoundings = 12;  // operations of a decoder's block between two places of the residual stream
constexpr int64_t kForward = 4 * kBlockRoundings, kBackward = 2 * kForward;

// While it lives, what asks for one of these kernels gets it.
class OnlyFast {
 public:
  explicit OnlyFast(const std::vector<ops::Kernel>& kernels) {
    for (const auto kernel : kernels) before_[kernel] = ops::kernel_choices(kernel);
  }
  ~OnlyFast() {
    for (const auto& [kernel, before] : before_) {
      const auto now = ops::kernel_choices(kernel);
      EXPECT_EQ(now.plain, before.plain) << "a plain form ran";
      EXPECT_GT(now.fused, before.fused) << "the kernel did not run";
    }
  }

 private:
  std::map<ops::Kernel, ops::KernelChoices> before_;
};

struct Evaluation {
  double loss = 0.0;
  std::map<std::string, at::Tensor> gradients;  // f64
  std::vector<at::Tensor> experts;              // of each sparse layer's tokens
};

Evaluation evaluate(const ModelConfig& config, const ModelWeights& weights, const LossInput& input,
                    at::ScalarType dtype) {
  auto leaves = weights;
  auto parameters = list_parameters(config, leaves);
  for (auto& parameter : parameters)
    *parameter.tensor =
        parameter.tensor->detach().clone().to(dtype == at::kDouble ? at::kDouble : at::kFloat).requires_grad_();
  const auto loss = compute_loss(config, cast_weights(config, leaves, dtype), input, {}, {.z_loss = 0.01});
  loss.total.backward();
  Evaluation result{loss.total.item<double>(), {}, {}};
  for (const auto& [spec, tensor] : parameters)
    if (tensor->grad().defined()) result.gradients[spec.name] = tensor->grad().to(at::kDouble);
  for (const auto* stack : {&loss.encoder, &loss.decoder})
    for (const auto& layer : stack->sparse_layers) result.experts.push_back(layer.routing.expert_index);
  return result;
}

bool same_experts(const Evaluation& a, const Evaluation& b) {
  return std::equal(a.experts.begin(), a.experts.end(), b.experts.begin(), b.experts.end(),
                    [](const at::Tensor& x, const at::Tensor& y) { return at::equal(x, y); });
}

class ProductionKernels : public testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override {
    if (!ops::is_fused(at::ones({1, 64}, GetParam()), ops::Kernel::kPanels, {64}))
      GTEST_SKIP() << "this processor has no fast product for " << GetParam();
  }
};

TEST_P(ProductionKernels, LossAndGradientsAreThoseOfF64) {
  const auto dtype = GetParam();
  // In bf16 a ReLU near 0 may round to the other side, which is no error of a kernel but moves a gradient: gated only.
  for (const bool gated : {true, false})
    for (const auto& sizes : kSizes) {
      if (dtype == at::kBFloat16 && !gated) continue;
      SCOPED_TRACE(testing::Message() << sizes.batch << " x (" << sizes.encoder_length << " + " << sizes.decoder_length
                                      << ")" << (gated ? ", gated" : ""));
      const auto config = fast_config(gated);
      Evaluation exact, fast;
      uint64_t seed = 0;  // of weights that leave no choice of an expert to rounding
      do {
        ASSERT_LT(++seed, 50U) << "experts always differ from those in f64";
        const auto weights = random_weights(config, seed);
        const auto input = random_input(sizes, config.vocab_size);
        exact = evaluate(config, weights, input, at::kDouble);
        const OnlyFast only({ops::Kernel::kPanels, ops::Kernel::kTiles});
        fast = evaluate(config, weights, input, dtype);
      } while (!same_experts(exact, fast));
      EXPECT_NEAR(fast.loss, exact.loss, tolerance(dtype, kForward) * std::abs(exact.loss));
      double largest = 0.0;
      for (const auto& [name, gradient] : exact.gradients) largest = std::max(largest, gradient.norm().item<double>());
      ASSERT_EQ(fast.gradients.size(), exact.gradients.size());
      for (const auto& [name, gradient] : exact.gradients) {
        // A gradient that is 0 in theory (one key: nothing to choose from) is a difference of terms of any size.
        const double norm = gradient.norm().item<double>();
        const double scale = norm < 1e-12 * largest ? largest : norm + 0.01 * largest;
        EXPECT_LE((fast.gradients.at(name) - gradient).norm().item<double>() / scale, tolerance(dtype, kBackward))
            << name;
      }
    }
}

// Every batch size that takes the products of few rows, and more.
TEST_P(ProductionKernels, DecodingStepByStepIsThatOfF64) {
  const auto dtype = GetParam();
  auto config = fast_config(/*gated=*/true);
  config.routing.expert_capacity = 1000;
  for (const int64_t batch : {1, 2, 3, 4, 5, 6, 7, 8, 9, 65}) {
    SCOPED_TRACE(testing::Message() << "batch " << batch);
    constexpr int64_t kLength = 6;
    bool compared = false;
    for (uint64_t seed = 1; seed < 50 && !compared; ++seed) {
      const auto master = random_weights(config, seed);
      const auto weights = cast_weights(config, master, dtype), exact = cast_weights(config, master, at::kDouble);
      const auto input = random_input({batch, 9, kLength}, config.vocab_size);
      auto mask = at::ones({batch, 9}, at::kBool);
      mask[0].slice(0, 6).fill_(false);
      const auto encoded = encode(config, exact, {input.encoder.ids, mask}, {});
      const auto whole = decode(config, exact, {input.decoder.ids}, encoded.hidden, {.mask = mask}, {});
      // Rounding may choose other experts for single tokens; of as many as 65 x 6, for some.
      const auto is_near = [&](const at::Tensor& got, const at::Tensor& wanted) {
        const auto distance = (got.to(at::kDouble) - wanted).norm(2, -1) / wanted.norm(2, -1);
        return distance.le(tolerance(dtype, kForward)).to(at::kDouble).mean().item<double>();
      };
      const OnlyFast only({ops::Kernel::kPanels, ops::Kernel::kElements});
      DecoderCache cache(weights, batch, kLength);
      const auto slots = cache.add_rows(weights, encoded.hidden.to(dtype), mask);
      double near = 1.0;
      for (int64_t position = 0; position < kLength; ++position) {
        const auto step =
            decode_step(config, weights, cache, slots, input.decoder.ids.slice(1, position, position + 1));
        near = std::min(near, is_near(step.select(1, 0), whole.hidden.select(1, position)));
      }
      compared = near >= (batch < 10 ? 1.0 : 0.9);
    }
    EXPECT_TRUE(compared) << "differs from f64 whatever the weights";
  }
}

// Greedy decoding takes the argmax of output_logits(), scoring its log-softmax, evaluation the fused cross entropy.
TEST_P(ProductionKernels, DecodingAndEvaluationSeeTheSameLogits) {
  const auto dtype = GetParam();
  for (const bool tied : {false, true}) {
    const auto config = fast_config(/*gated=*/!tied);
    const auto weights = cast_weights(config, random_weights(config, 3), dtype);
    for (const int64_t rows : {1, 8, 9, 65}) {
      const auto hidden = (at::randn_like(at::ones({rows, 64})) * 3.0).to(dtype);
      const OnlyFast only({ops::Kernel::kPanels});
      const auto logits = output_logits(weights, hidden);
      const auto labels = at::randint(0, config.vocab_size, {rows}, at::kLong);
      const auto chosen = at::log_softmax(logits, 1).gather(1, labels.unsqueeze(1)).squeeze(1);
      const auto evaluated = ops::label_log_probabilities(hidden, weights.output, labels, weights.output_scale);
      EXPECT_LE((chosen - evaluated).abs().max().item<double>(), 64 * 0x1p-24 * logits.abs().max().item<double>());
      EXPECT_EQ(ops::linear_cross_entropy(hidden, weights.output, logits.argmax(1), weights.output_scale).num_correct,
                rows);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, ProductionKernels, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& param) { return std::string(param.param == at::kFloat ? "f32" : "bf16"); });

}  // namespace
}  // namespace switchyard
