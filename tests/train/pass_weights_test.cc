#include "train/pass_weights.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <gtest/gtest.h>

#include "eval/text_loss.h"
#include "model/loss.h"
#include "model/routing_variants.h"
#include "testing/model.h"
#include "testing/tensors.h"
#include "train/teaching.h"

namespace switchyard {
namespace {

at::Tensor loss_of(const ModelConfig& config, const ComputeWeights& weights, const Batch& batch) {
  return compute_loss(config, weights, to_tensors(batch, 0, batch.batch_size, at::kCPU), {.training = true, .seed = 3},
                      {.z_loss = 1e-4})
      .total;
}

// What autograd gives through casts and joins of the parameters themselves.
std::vector<at::Tensor> plain_gradients(const ModelConfig& config, at::ScalarType dtype, const Batch& batch) {
  auto weights = initialize(config, 4);
  const auto parameters = list_parameters(config, weights);
  for (const auto& [spec, tensor] : parameters) tensor->requires_grad_(!spec.is_buffer());
  loss_of(config, cast_weights(config, weights, dtype), batch).backward();
  std::vector<at::Tensor> gradients;
  for (const auto& parameter : parameters) gradients.push_back(parameter.tensor->grad());
  return gradients;
}

std::vector<bool> all_but_buffers(const ModelConfig& config) {
  std::vector<bool> trained;
  for (const auto& spec : parameter_specs(config)) trained.push_back(!spec.is_buffer());
  return trained;
}

void expect_same_gradients(const ModelConfig& config, at::ScalarType dtype) {
  const auto batch = padded_batch();
  const auto wanted = plain_gradients(config, dtype, batch);
  PassWeights pass(config, initialize(config, 4), dtype, all_but_buffers(config));
  const auto specs = parameter_specs(config);
  for (const bool keeps_sum : {false, true}) {
    loss_of(config, pass.compute(), batch).backward();
    if (keeps_sum) pass.keep_sums();
    const auto gradients = pass.take_gradients();
    for (size_t n = 0; n < specs.size(); ++n) {
      ASSERT_EQ(gradients[n].defined(), wanted[n].defined()) << specs[n].name;
      if (!wanted[n].defined()) continue;
      EXPECT_TRUE(gradients[n].to(at::kFloat).equal(wanted[n])) << specs[n].name << ", summed: " << keeps_sum;
      if (keeps_sum) {
        EXPECT_EQ(gradients[n].scalar_type(), at::kFloat);
      }
    }
  }
}

// On one thread, as products of other sizes than multiples of 64 are libtorch's.
TEST(PassWeights, GradientsAreThoseOfTheParameters) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (auto config : {test::tiny_model(), test::fast_tiny_model()}) {
      expect_same_gradients(config, dtype);
      config.tie_output = false;
      config.gated = true;
      expect_same_gradients(config, dtype);
    }
    auto sparse = test::fast_tiny_model();
    sparse.num_encoder_layers = sparse.num_decoder_layers = 4;
    for (const auto& variant : routing_variants()) expect_same_gradients(with_variant(sparse, variant), dtype);
  }
  at::set_num_threads(threads);
}

TEST(PassWeights, SumsOfSeveralPassesAreF32) {
  const auto config = test::fast_tiny_model();
  const auto batch = padded_batch();
  const auto once = plain_gradients(config, at::kBFloat16, batch);
  PassWeights pass(config, initialize(config, 4), at::kBFloat16, all_but_buffers(config));
  for (int n = 0; n < 3; ++n) {
    loss_of(config, pass.compute(), batch).backward();
    if (n < 2) pass.keep_sums();
  }
  const auto thrice = pass.take_gradients();
  for (size_t n = 0; n < once.size(); ++n) {
    if (!once[n].defined()) continue;
    const auto wanted = once[n] + once[n] + once[n];
    // A table's gradient has two parts, which are added at the end.
    EXPECT_TRUE(parameter_specs(config)[n].role == Role::kEmbedding ? at::allclose(thrice[n], wanted, 1e-6, 1e-9)
                                                                    : thrice[n].equal(wanted))
        << parameter_specs(config)[n].name;
  }
  for (const auto& gradient : pass.take_gradients()) EXPECT_FALSE(gradient.defined());
}

TEST(PassWeights, WhatIsFrozenGetsNoGradient) {
  const auto config = test::fast_tiny_model();
  const auto specs = parameter_specs(config);
  std::vector<bool> trained;
  for (const auto& spec : specs) trained.push_back(spec.role == Role::kNorm);
  PassWeights pass(config, initialize(config, 4), at::kBFloat16, trained);
  loss_of(config, pass.compute(), padded_batch()).backward();
  const auto gradients = pass.take_gradients();
  for (size_t n = 0; n < specs.size(); ++n)
    EXPECT_EQ(gradients[n].defined(), specs[n].role == Role::kNorm) << specs[n].name;
  EXPECT_FALSE(pass.compute().output.requires_grad());
}

TEST(PassWeights, CopiesFollowTheirParameters) {
  const auto config = test::fast_tiny_model();
  auto weights = initialize(config, 4);
  PassWeights pass(config, weights, at::kBFloat16, all_but_buffers(config));
  for (const auto& [spec, tensor] : list_parameters(config, weights)) tensor->detach().mul_(2.0);
  pass.refresh();
  const auto wanted = cast_weights(config, weights, at::kBFloat16);
  const auto& block = pass.compute().decoder.blocks[1];
  const auto& same = wanted.decoder.blocks[1];
  EXPECT_TRUE(block.self_attention.qkv.equal(same.self_attention.qkv));
  EXPECT_TRUE(block.cross_attention.kv.equal(same.cross_attention.kv));
  EXPECT_TRUE(block.feed_forward.experts.wi.equal(same.feed_forward.experts.wi));
  EXPECT_TRUE(pass.compute().output.equal(wanted.output));
}

}  // namespace
}  // namespace switchyard
