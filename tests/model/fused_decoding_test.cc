// A decoding step by kernels alone against the same step by operations: equal to the bit.
#include "model/fused_decoding.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "model/decoder_cache.h"
#include "ops/backend.h"
#include "ops/quantized.h"

namespace switchyard {
namespace {

// Large enough for threads to share its columns.
ModelConfig small() {
  auto config = preset("switch-tiny-4");
  config.vocab_size = 128;
  config.d_model = 256;
  config.d_ff = 1024;
  config.d_kv = 32;
  config.num_heads = 4;
  config.routing.num_experts = 6;
  return config;
}

struct Form {
  const char* name;
  at::ScalarType dtype;  // of the pass
  std::optional<ops::QuantizedForm> weights = {};
  friend std::ostream& operator<<(std::ostream& out, const Form& form) { return out << form.name; }
};
constexpr Form kForms[] = {{"fp32", at::kFloat},
                           {"bf16", at::kBFloat16},
                           {"int8", at::kBFloat16, ops::QuantizedForm::kInt8},
                           {"int4", at::kBFloat16, ops::QuantizedForm::kInt4}};

struct Variant {
  const char* name;
  void (*change)(ModelConfig&);
  friend std::ostream& operator<<(std::ostream& out, const Variant& variant) { return out << variant.name; }
};
const Variant kVariants[] = {
    {"top 1", [](ModelConfig&) {}},
    {"gated", [](ModelConfig& config) { config.gated = true, config.activation = Activation::kGeluNew; }},
    {"chosen in the compute dtype", [](ModelConfig& config) { config.routing.selection_dtype = PartDtype::kCompute; }},
    {"top 2", [](ModelConfig& config) { config.routing.num_selected_experts = 2; }},
    {"sigmoid", [](ModelConfig& config) { config.routing.router_score = RouterScore::kSigmoid; }},
    {"no token left behind", [](ModelConfig& config) { config.routing.router = RouterKind::kNoTokenLeftBehind; }},
    {"dense with biases of layers",
     [](ModelConfig& config) {
       config.routing.num_experts = config.encoder_sparse_step = config.decoder_sparse_step = 0;
       config.relative_bias_every_layer = true;
     }},
};

void quantize(ComputeWeights& weights, ops::QuantizedForm form) {
  for (auto& block : weights.decoder.blocks) {
    auto& layer = block.feed_forward;
    for (auto* matrix : {&block.self_attention.qkv, &block.self_attention.o, &block.cross_attention.q,
                         &block.cross_attention.o, &layer.dense.wi, &layer.dense.wi_1, &layer.dense.wo,
                         &layer.experts.wi, &layer.experts.wi_1, &layer.experts.wo})
      if (matrix->defined()) *matrix = ops::quantize(*matrix, form);
  }
}

// Prompts of some length; with_mask: with padding within.
struct Prompts {
  at::Tensor hidden, mask;
};
Prompts some_prompts(const ModelConfig& config, const ComputeWeights& weights, int64_t count, int64_t length,
                     bool with_mask) {
  const auto ids = at::randint(2, 128, {count, length}, at::kLong);
  auto mask = with_mask ? at::ones({count, length}, at::kBool) : at::Tensor();
  if (with_mask) mask.slice(1, 2, 4).fill_(false);
  return {encode(config, weights, {ids}, {.drop_tokens = false}).hidden, mask};
}

class FusedDecodingTest : public testing::TestWithParam<std::tuple<Form, Variant>> {};

// Rows join while others are under way, over prompts of different lengths and with padding.
TEST_P(FusedDecodingTest, HasTheBitsOfTheOperations) {
  const auto& [form, variant] = GetParam();
  if (!ops::is_fused(at::ones({1}, form.dtype), ops::Kernel::kPanels, {64}))
    GTEST_SKIP() << "no products in this dtype";
  const at::NoGradGuard no_grad;
  auto config = small();
  variant.change(config);
  auto weights = cast_weights(config, initialize(config, 3), form.dtype);
  if (form.weights) quantize(weights, *form.weights);
  const int threads = at::get_num_threads();
  for (const int team : {1, 2, 5}) {
    at::set_num_threads(team);
    DecoderCache fused(weights, 8, 12), plain(weights, 8, 12);
    std::vector<int64_t> slots;
    for (const auto& [count, length, with_mask] : {std::tuple{1, 7, false}, {2, 30, true}, {5, 4, false}}) {
      const auto [hidden, mask] = some_prompts(config, weights, count, length, with_mask);
      for (const int64_t slot : fused.add_rows(weights, hidden, mask)) slots.push_back(slot);
      plain.add_rows(weights, hidden, mask);
      for (int64_t step = 0; step < 4; ++step) {
        const auto ids = at::randint(2, 128, {static_cast<int64_t>(slots.size()), 1}, at::kLong);
        std::vector<SparseLayer> layers, plain_layers;
        const bool with_routing = step % 2 == 1;
        EXPECT_NE(CachedRows(fused, slots, 1).fused(config, weights), nullptr);
        const auto actual = decode_step(config, weights, fused, slots, ids, with_routing ? &layers : nullptr);
        const auto expected = decode_step_by_operations(config, weights, plain, slots, ids, &plain_layers);
        ASSERT_TRUE(at::equal(actual, expected)) << team << " threads, " << slots.size() << " rows, step " << step;
        if (!with_routing) continue;
        ASSERT_EQ(layers.size(), plain_layers.size());
        for (size_t n = 0; n < layers.size(); ++n) {
          EXPECT_EQ(layers[n].name, plain_layers[n].name);
          EXPECT_TRUE(at::equal(layers[n].router_logits, plain_layers[n].router_logits));
          EXPECT_TRUE(at::equal(layers[n].routing.expert_index, plain_layers[n].routing.expert_index));
          EXPECT_TRUE(at::equal(layers[n].routing.counts.sums, plain_layers[n].routing.counts.sums));
        }
      }
    }
  }
  at::set_num_threads(threads);
}

std::string name_of(const testing::TestParamInfo<std::tuple<Form, Variant>>& info) {
  std::string name = std::string(std::get<0>(info.param).name) + "_" + std::get<1>(info.param).name;
  std::replace(name.begin(), name.end(), ' ', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Models, FusedDecodingTest,
                         testing::Combine(testing::ValuesIn(kForms), testing::ValuesIn(kVariants)), name_of);

TEST(FusedDecoding, LeavesToTheOperationsWhatHasNoKernel) {
  const at::NoGradGuard no_grad;
  const auto is_fused = [](const ModelConfig& config, at::ScalarType dtype, int64_t length) {
    const auto weights = cast_weights(config, initialize(config, 3), dtype);
    DecoderCache cache(weights, 2, 12);
    const auto [hidden, mask] = some_prompts(config, weights, 1, 5, false);
    const auto slots = cache.add_rows(weights, hidden, mask);
    return CachedRows(cache, slots, length).fused(config, weights) != nullptr;
  };
  auto config = small();
  EXPECT_TRUE(is_fused(config, at::kFloat, 1));
  EXPECT_FALSE(is_fused(config, at::kFloat, 2));
  EXPECT_FALSE(is_fused(config, at::kDouble, 1));
  config.activation = Activation::kGelu;
  EXPECT_FALSE(is_fused(config, at::kFloat, 1));
  config = small();
  config.d_ff = 1000;
  EXPECT_FALSE(is_fused(config, at::kFloat, 1));
  config = small();
  config.routing.router = RouterKind::kHash;
  EXPECT_FALSE(is_fused(config, at::kFloat, 1));
  config = small();
  config.routing.shared_expert_d_ff = 128;
  EXPECT_FALSE(is_fused(config, at::kFloat, 1));
}

}  // namespace
}  // namespace switchyard
