// The plain forms compute on whatever device their tensors are on. The meta device, which has shapes but no numbers,
// stands for all of them here: it refuses to be read, and to meet a tensor of another device. Left out is what libtorch
// itself cannot do there (indexing, masks, ReLU).
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include "ops/attention.h"
#include "ops/cross_entropy.h"
#include "ops/layers.h"
#include "ops/router.h"

namespace switchyard::ops {
namespace {

constexpr NoiseKey kKey{.seed = 5, .purpose = NoisePurpose::kDropout};

at::Tensor meta(at::IntArrayRef sizes, at::ScalarType dtype = at::kFloat) {
  return at::empty(sizes, at::TensorOptions().dtype(dtype).device(at::kMeta));
}

void expect_meta(const at::Tensor& tensor, at::IntArrayRef sizes, at::ScalarType dtype) {
  EXPECT_TRUE(tensor.is_meta());
  EXPECT_EQ(tensor.sizes(), sizes);
  EXPECT_EQ(tensor.scalar_type(), dtype);
}

TEST(Devices, LayersStayOnTheirs) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto x = meta({2, 5, 64}, dtype), stream = meta({2, 5, 64});
    expect_meta(rms_norm(stream, meta({64}), 1e-6, dtype), {2, 5, 64}, dtype);
    expect_meta(add_residual(stream, x), {2, 5, 64}, at::kFloat);
    expect_meta(linear(x, meta({128, 64}, dtype)), {2, 5, 128}, dtype);
    expect_meta(dropout(x, 0.1, kKey, 3), {2, 5, 64}, dtype);
    for (const auto name : {Activation::kSilu, Activation::kGeluNew})
      expect_meta(feed_forward(x, meta({128, 64}, dtype), meta({128, 64}, dtype), meta({64, 128}, dtype),
                               {.activation = name, .hidden_dropout_rate = 0.1, .key = kKey}),
                  {2, 5, 64}, dtype);
    expect_meta(vocabulary_logits(x.view({10, 64}), meta({200, 64}, dtype), 0.5), {10, 200}, at::kFloat);
  }
}

TEST(Devices, AttentionStaysOnItsOwn) {
  const auto q = meta({2, 5, 64}, at::kBFloat16);
  expect_meta(attention(q, q, q, {}, {}, {.num_heads = 4}), {2, 5, 64}, at::kBFloat16);
}

TEST(Devices, RouterInputStaysOnItsOwn) {
  const auto x = meta({10, 64}, at::kBFloat16);
  for (const auto& noise :
       {RouterInputNoise{.jitter = 0.1, .key = kKey}, RouterInputNoise{.dropout = 0.1, .key = kKey}})
    expect_meta(router_logits(x, meta({4, 64}), meta({4}), noise), {10, 4}, at::kFloat);
}

}  // namespace
}  // namespace switchyard::ops
