// Every form of the sparse layer in a whole model, and the conventions' arithmetic.
#include "model/routing.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/decoder_cache.h"
#include "model/loss.h"
#include "model/routing_variants.h"
#include "testing/model.h"

namespace switchyard {
namespace {

using test::tiny_model;

LossInput random_input(int64_t batch, int64_t encoder_length, int64_t decoder_length, int64_t vocab_size) {
  const auto labels = at::randint(3, vocab_size, {batch, decoder_length}, at::kLong);
  return {{at::randint(3, vocab_size, {batch, encoder_length}, at::kLong)}, {shift_right(labels)}, labels};
}

template <class Check>
void for_each_variant(Check&& check) {
  for (const auto& variant : routing_variants()) {
    SCOPED_TRACE(variant.name);
    check(variant, with_variant(tiny_model(), variant));
  }
}

TEST(RoutingVariant, GradientsMatchFiniteDifferencesInTraining) {
  // Ids that do not depend on the tests before: some put a ReLU within a step of its kink.
  auto generator = at::detail::getDefaultCPUGenerator();
  generator.set_current_seed(c10::default_rng_seed_val);
  for_each_variant([](const RoutingVariant&, ModelConfig config) {
    config.expert_dropout_rate = 0.1;
    auto weights = initialize(config, 3);
    auto parameters = list_parameters(config, weights);
    std::erase_if(parameters, [](const NamedParameter& parameter) { return parameter.spec.is_buffer(); });
    for (auto& parameter : parameters) *parameter.tensor = parameter.tensor->to(at::kDouble).requires_grad_();
    const auto input = random_input(2, 9, 7, config.vocab_size);
    const ForwardOptions forward{.training = true, .seed = 2, .step = 1};
    const auto loss = [&] {
      return compute_loss(config, cast_weights(config, weights, at::kDouble), input, forward, {.z_loss = 0.01}).total;
    };
    loss().backward();
    const at::NoGradGuard no_grad;
    for (auto& [spec, tensor] : parameters) {
      if (spec.name.find("mlp.") == std::string::npos && spec.name.find("SelfAttention") == std::string::npos) continue;
      ASSERT_TRUE(tensor->grad().defined()) << spec.name;
      const auto gradient = tensor->grad().reshape({-1}), flat = tensor->detach().view({-1});
      const int64_t at = gradient.abs().argmax().item<int64_t>();  // where a wrong gradient shows most
      const double before = flat[at].item<double>(), step = 1e-6;
      flat[at].fill_(before + step);
      const double above = loss().item<double>();
      flat[at].fill_(before - step);
      const double below = loss().item<double>();
      flat[at].fill_(before);
      const double expected = (above - below) / (2 * step), got = gradient[at].item<double>();
      // Twice the usual: a balance loss is a product of two means.
      EXPECT_NEAR(got, expected, 1e-6 + 2e-5 * std::abs(expected)) << spec.name;
    }
  });
}

TEST(RoutingVariant, FastKernelsEqualF64) {
  for_each_variant([](const RoutingVariant& variant, const ModelConfig& config) {
    if (config.routing.selection_dtype == PartDtype::kCompute)
      return;  // chooses by rounded probabilities, by definition
    const auto weights = initialize(config, 5);
    const auto input = random_input(2, 21, 13, config.vocab_size);
    const auto loss = [&](at::ScalarType dtype) {
      return compute_loss(config, cast_weights(config, weights, dtype), input, {.training = true, .step = 4}, {})
          .total.item<double>();
    };
    // A loss of about 5, after f32 roundings of all blocks and of the router's losses.
    EXPECT_NEAR(loss(at::kFloat), loss(at::kDouble), 1e-4) << variant.name;
  });
}

TEST(RoutingVariant, DecoderSeesNoFutureToken) {
  for_each_variant([](const RoutingVariant& variant, ModelConfig config) {
    if (!config.routing.causal_decoder) return;  // says so itself: mesh and t5x give first choices precedence
    const auto weights = cast_weights(config, initialize(config, 7), at::kDouble);
    const auto input = random_input(1, 8, 14, config.vocab_size);
    const auto encoded = encode(config, weights, {input.encoder.ids}, {});
    const auto hidden = decode(config, weights, {input.decoder.ids}, encoded.hidden, {}, {}).hidden;
    for (const int64_t from : {3, 9, 13}) {
      auto changed = input.decoder.ids.clone();
      changed[0].slice(0, from).fill_(5);
      const auto other = decode(config, weights, {changed}, encoded.hidden, {}, {}).hidden;
      EXPECT_TRUE(at::allclose(hidden.slice(1, 0, from), other.slice(1, 0, from), 1e-12, 1e-12))
          << variant.name << " before " << from;
    }
  });
}

TEST(RoutingVariant, EvaluationIsDeterministicAndWithoutNoise) {
  for_each_variant([](const RoutingVariant&, const ModelConfig& config) {
    const auto weights = cast_weights(config, initialize(config, 7), at::kFloat);
    const auto ids = at::randint(3, config.vocab_size, {2, 20}, at::kLong);
    const auto one = encode(config, weights, {ids}, {.seed = 1, .step = 1}).hidden;
    const auto two = encode(config, weights, {ids}, {.seed = 2, .step = 9}).hidden;
    EXPECT_TRUE(one.equal(two));
  });
}

TEST(RoutingVariant, ABatchOfOneEqualsThatRowWhenGroupsAreSequences) {
  for_each_variant([](const RoutingVariant&, ModelConfig config) {
    config.routing.group_size = 0;
    config.routing.group_rule = GroupRule::kExact;
    const auto weights = cast_weights(config, initialize(config, 7), at::kDouble);
    const auto ids = at::randint(3, config.vocab_size, {3, 12}, at::kLong);
    const auto batch = encode(config, weights, {ids}, {}).hidden;
    for (int64_t row = 0; row < 3; ++row)
      EXPECT_TRUE(at::allclose(encode(config, weights, {ids.slice(0, row, row + 1)}, {}).hidden,
                               batch.slice(0, row, row + 1), 1e-12, 1e-12));
  });
}

TEST(RoutingVariant, PaddingOfEitherSideChangesNothingWhereItIsIgnored) {
  for_each_variant([](const RoutingVariant&, ModelConfig config) {
    if (config.routing.padding != PaddingRule::kIgnored || config.routing.router == RouterKind::kExpertChoice) return;
    config.routing.group_size = 0;
    config.routing.expert_capacity = 3;  // binds; counts slots, not positions
    const auto weights = initialize(config, 7);
    const auto ids = at::randint(3, config.vocab_size, {2, 10}, at::kLong);
    const auto labels = at::randint(3, config.vocab_size, {2, 6}, at::kLong);
    const auto loss = [&](const at::Tensor& all, const at::Tensor& mask) {
      return compute_loss(config, cast_weights(config, weights, at::kDouble),
                          {{all, mask}, {shift_right(labels)}, labels}, {}, {});
    };
    const auto junk = at::randint(3, config.vocab_size, {2, 8}, at::kLong);
    const auto real = at::ones({2, 10}, at::kBool), none = at::zeros({2, 8}, at::kBool);
    const auto plain = loss(ids, {}), right = loss(at::cat({ids, junk}, 1), at::cat({real, none}, 1)),
               left = loss(at::cat({junk, ids}, 1), at::cat({none, real}, 1));
    for (const auto* padded : {&right, &left}) {
      EXPECT_NEAR(padded->total.item<double>(), plain.total.item<double>(), 1e-9);
      EXPECT_NEAR(padded->load_balance_loss, plain.load_balance_loss, 1e-9);
      EXPECT_NEAR(padded->router_z_loss, plain.router_z_loss, 1e-9);
      EXPECT_NEAR(padded->importance_loss, plain.importance_loss, 1e-9);
    }
  });
}

TEST(RoutingVariant, StepwiseDecodingEqualsTheWholeSequenceWithoutDropping) {
  for_each_variant([](const RoutingVariant&, ModelConfig config) {
    config.routing.drop_tokens = false;
    const auto weights = cast_weights(config, initialize(config, 9), at::kDouble);
    const auto input = random_input(2, 9, 6, config.vocab_size);
    const auto encoded = encode(config, weights, {input.encoder.ids}, {});
    const auto whole = decode(config, weights, {input.decoder.ids}, encoded.hidden, {}, {}).hidden;
    DecoderCache cache(weights, /*slots=*/2, /*max_length=*/6);
    const auto slots = cache.add_rows(weights, encoded.hidden, {});
    for (int64_t n = 0; n < 6; ++n)
      EXPECT_TRUE(at::allclose(decode_step(config, weights, cache, slots, input.decoder.ids.slice(1, n, n + 1)),
                               whole.slice(1, n, n + 1), 1e-12, 1e-12));
  });
}

// Two layers that collapse to different experts: 2 + 2 summed, 2 averaged, and HF's pool sees nothing wrong.
TEST(BalanceOverLayers, CollapseToDifferentExperts) {
  ModelConfig config = tiny_model();
  config.routing.num_experts = 2;
  config.routing.router_bias = true;
  config.routing.group_size = 0;
  config.decoder_sparse_step = 0;
  const auto value = [&](LoadBalanceLayers layers) {
    config.routing.load_balance_layers = layers;
    auto weights = initialize(config, 3);
    for (const auto& [block, expert] : {std::pair{1, 0}, std::pair{3, 1}}) {
      auto& router = weights.encoder.blocks[static_cast<size_t>(block)].feed_forward.router;
      router.weight.zero_();
      router.bias = at::zeros({2}, at::kFloat);
      router.bias[expert].fill_(50.0);
    }
    const auto input = random_input(2, 10, 5, config.vocab_size);
    return compute_loss(config, cast_weights(config, weights, at::kFloat), input, {}, {}).load_balance_loss;
  };
  EXPECT_NEAR(value(LoadBalanceLayers::kSum), 4.0, 1e-5);
  EXPECT_NEAR(value(LoadBalanceLayers::kMean), 2.0, 1e-5);
  EXPECT_NEAR(value(LoadBalanceLayers::kPooled), 1.0, 1e-5);
}

TEST(SelectionBias, MovesTowardsExpertsWithLittleLoad) {
  auto bias = at::zeros({4}, at::kFloat);
  update_selection_bias_(bias, at::tensor({0.1, 0.25, 0.25, 0.4}, at::kFloat), 0.01);
  EXPECT_TRUE(at::allclose(bias, at::tensor({0.01, 0.0, 0.0, -0.01}, at::kFloat))) << bias;
}

// Flaxformer's group arithmetic, for its convention only.
TEST(GroupCount, FlaxformersTable) {
  EXPECT_EQ(t5x_num_groups(8, 32, 2, 1), 4);
  EXPECT_EQ(t5x_num_groups(9, 32, 2, 1), 4);
  EXPECT_EQ(t5x_num_groups(16, 32, 4, 2), 8);
  EXPECT_EQ(t5x_num_groups(32, 32, 2, 1), 2);
  EXPECT_EQ(t5x_num_groups(64, 32, 2, 1), 2);
}

TEST(GroupCount, MeshRoundsDownAndCanExceedTheSize) {
  EXPECT_EQ(mesh_num_groups(1024, 1500), 1);
  EXPECT_EQ(mesh_num_groups(1024, 4096), 4);
  EXPECT_EQ(mesh_num_groups(1000, 4096), 4);
}

// DeepSpeed's buffer sizes: ceil(tokens / experts * factor * k), nothing but the minimum below it.
TEST(ExpertCapacity, DeepSpeedsBuffers) {
  RoutingConfig routing;
  routing.capacity_rounding = CapacityRounding::kCeil;
  routing.capacity_within_group = false;
  const auto slots = [&](int64_t tokens, int64_t experts, double factor_times_k, int64_t minimum) {
    routing.num_experts = experts;
    routing.train_capacity_factor = factor_times_k;
    routing.min_expert_capacity = minimum;
    return expert_capacity(routing, tokens, true);
  };
  EXPECT_EQ(slots(8, 2, 2.0 * 2, 1), 16);
  EXPECT_EQ(slots(8, 2, 4.0, 1), 16);
  EXPECT_EQ(slots(4, 2, 1.0, 8), 8);
  EXPECT_EQ(slots(3, 4, 8.0, 1), 6);
}

TEST(SparseLayout, FlaxformersTable) {
  using Blocks = std::vector<int64_t>;
  EXPECT_EQ(sparse_layout(SparseLayout::kBottom, 12, 4), (Blocks{0, 1, 2, 3}));
  EXPECT_EQ(sparse_layout(SparseLayout::kMiddle, 12, 2), (Blocks{5, 6}));
  EXPECT_EQ(sparse_layout(SparseLayout::kMixed, 12, 3), (Blocks{3, 7, 11}));
  EXPECT_EQ(sparse_layout(SparseLayout::kTop, 12, 1), (Blocks{11}));
  EXPECT_EQ(sparse_layout(SparseLayout::kMixed, 12, 6), (Blocks{1, 3, 5, 7, 9, 11}));
  EXPECT_EQ(sparse_layout(SparseLayout::kMixed, 12, 0), Blocks{});
  EXPECT_THROW(sparse_layout(SparseLayout::kMixed, 12, 5), Error);
}

TEST(Convention, SetsWhatDiffersAndEachKeyStaysSettable) {
  RoutingConfig routing;
  routing.num_experts = 8;
  apply_convention(routing, Convention::kT5x);
  EXPECT_EQ(expert_capacity(routing, 100, true), 16);  // 15.625 half to even; floor gives 15
  EXPECT_EQ(expert_capacity(routing, 2, false), 4);    // the minimum, above the group's size
  EXPECT_EQ(routing.load_balance_layers, LoadBalanceLayers::kMean);
  EXPECT_EQ(routing.exploration, Exploration::kArgmax);
  routing.capacity_rounding = CapacityRounding::kCeil;
  routing.train_capacity_factor = 1.2;
  EXPECT_EQ(expert_capacity(routing, 101, true), 16);  // 15.15
  routing = {};
  apply_convention(routing, Convention::kHf);
  routing.num_experts = 8;
  EXPECT_EQ(group_tokens(routing, 8, {8, 512, 114}, 512), 512);
  EXPECT_EQ(expert_capacity(routing, 512, true), 64);
  for (const auto convention : {Convention::kPaper, Convention::kMesh, Convention::kT5x, Convention::kHf}) {
    RoutingConfig each;
    each.num_experts = 4;
    apply_convention(each, convention);
    EXPECT_NO_THROW(validate_routing(each)) << to_word(convention);
    EXPECT_GT(describe_routing(each).size(), 5U);
  }
}

TEST(RoutingConfig, RefusesWhatCannotBe) {
  const auto refuse = [](auto&& change) {
    auto config = tiny_model();
    change(config);
    EXPECT_THROW(validate(config), Error);
  };
  refuse([](ModelConfig& c) { c.routing.num_selected_experts = 5; });
  refuse([](ModelConfig& c) { c.routing.num_selected_experts = 0; });
  refuse([](ModelConfig& c) { c.routing.router = RouterKind::kHash, c.routing.router_bias = true; });
  refuse([](ModelConfig& c) { c.routing.router = RouterKind::kHash, c.routing.drop_priority = DropPriority::kBatch; });
  refuse([](ModelConfig& c) { c.routing.router = RouterKind::kHash, c.routing.drop_priority = DropPriority::kExpert; });
  refuse([](ModelConfig& c) { c.routing.router = RouterKind::kNoTokenLeftBehind, c.routing.num_selected_experts = 2; });
  refuse([](ModelConfig& c) { c.encoder_num_experts = {4}; });
  refuse([](ModelConfig& c) { c.encoder_attention_sparse_step = 9; });
  refuse([](ModelConfig& c) { c.routing.router_dropout_rate = 1.0; });
}

// Switch attention diverged in bf16 (table 10): its experts stay in f32 unless told otherwise.
TEST(SwitchAttention, ExpertsStayWideByDefault) {
  auto config = tiny_model();
  config.encoder_attention_sparse_step = 2;
  auto cast = cast_weights(config, initialize(config, 1), at::kBFloat16);
  EXPECT_EQ(cast.encoder.blocks[1].self_attention.qkv.scalar_type(), at::kFloat);
  EXPECT_EQ(cast.encoder.blocks[0].self_attention.qkv.scalar_type(), at::kBFloat16);
  config.attention_expert_dtype = PartDtype::kCompute;
  cast = cast_weights(config, initialize(config, 1), at::kBFloat16);
  EXPECT_EQ(cast.encoder.blocks[1].self_attention.qkv.scalar_type(), at::kBFloat16);
}

// One expert with gate 1 is the dense layer.
TEST(SwitchAttention, OneExpertIsTheDenseLayer) {
  auto config = tiny_model();
  config.encoder_sparse_step = config.decoder_sparse_step = 0;
  config.routing.num_experts = 1;
  config.encoder_attention_sparse_step = 1;
  config.routing.expert_capacity = 1000;
  auto weights = initialize(config, 1);
  const auto ids = at::randint(3, config.vocab_size, {2, 12}, at::kLong);
  const auto sparse = encode(config, cast_weights(config, weights, at::kDouble), {ids}, {}).hidden;
  auto dense_config = config;
  dense_config.encoder_attention_sparse_step = 0;
  dense_config.routing.num_experts = 0;
  for (auto& block : weights.encoder.blocks)
    for (auto* matrix : {&block.self_attention.q, &block.self_attention.k, &block.self_attention.v})
      *matrix = matrix->squeeze(0);
  const auto dense = encode(dense_config, cast_weights(dense_config, weights, at::kDouble), {ids}, {}).hidden;
  EXPECT_TRUE(at::allclose(sparse, dense, 1e-12, 1e-12));
}

}  // namespace
}  // namespace switchyard
