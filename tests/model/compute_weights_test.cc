#include "model/compute_weights.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include "model/transformer.h"
#include "testing/model.h"

namespace switchyard {
namespace {

ModelConfig tiny() {
  auto config = test::tiny_model();
  config.num_heads = 2;  // 16 rows of q, k and v
  config.routing.num_experts = config.encoder_sparse_step = config.decoder_sparse_step = 0;
  return config;
}

TEST(ComputeWeights, MatricesOfOneInputAreOne) {
  const auto config = tiny();
  const auto weights = initialize(config, 3);
  const auto compute = cast_weights(config, weights, at::kBFloat16);
  const auto& self = weights.encoder.blocks[1].self_attention;
  const auto& cross = weights.decoder.blocks[0].cross_attention;
  EXPECT_TRUE(compute.encoder.blocks[1].self_attention.qkv.equal(at::cat({self.q, self.k, self.v}).to(at::kBFloat16)));
  EXPECT_TRUE(compute.decoder.blocks[0].cross_attention.kv.equal(at::cat({cross.k, cross.v}).to(at::kBFloat16)));
}

TEST(ComputeWeights, MatricesThatLieOneBehindTheOtherAreNotCopied) {
  const auto config = tiny();
  auto weights = initialize(config, 3);
  auto& self = weights.encoder.blocks[0].self_attention;
  const auto memory = at::cat({self.q, self.k, self.v});
  self.q = memory.narrow(0, 0, 16);
  self.k = memory.narrow(0, 16, 16);
  self.v = memory.narrow(0, 32, 16);
  const auto joined = cast_weights(config, weights, at::kFloat).encoder.blocks[0].self_attention.qkv;
  EXPECT_TRUE(joined.equal(memory));
  EXPECT_TRUE(joined.is_alias_of(memory));
  self.k = memory.narrow(0, 32, 16);  // out of order
  self.v = memory.narrow(0, 16, 16);
  const auto other = cast_weights(config, weights, at::kFloat).encoder.blocks[0].self_attention.qkv;
  EXPECT_FALSE(other.is_alias_of(memory));
  EXPECT_TRUE(other.narrow(0, 16, 16).equal(self.k));
}

TEST(ComputeWeights, GradientsArriveAtTheGivenMatrices) {
  const auto config = tiny();
  auto weights = initialize(config, 3);
  auto& self = weights.encoder.blocks[0].self_attention;
  for (auto* matrix : {&self.q, &self.k, &self.v}) matrix->requires_grad_();
  const auto qkv = cast_weights(config, weights, at::kBFloat16).encoder.blocks[0].self_attention.qkv;
  // Twice through the same copies, as two micro-batches go.
  for (int part = 0; part < 2; ++part) (qkv.narrow(0, 16, 16) * 2.0).sum().backward();
  EXPECT_EQ(self.k.grad().scalar_type(), at::kFloat);
  EXPECT_EQ(self.k.grad().sum().item<double>(), 4.0 * 16 * 32);
  EXPECT_EQ(self.q.grad().abs().sum().item<double>(), 0.0);
}

}  // namespace
}  // namespace switchyard
