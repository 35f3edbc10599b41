#include "checkpoint/upcycle.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>

#include "base/error.h"
#include "checkpoint/testing.h"
#include "model/transformer.h"

namespace switchyard {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

LoadedModel dense_model() {
  LoadedModel model;
  model.config = preset("t5-tiny");
  model.config.vocab_size = 128;
  model.weights = initialize(model.config, 2);
  return model;
}

at::Tensor logits_of(const LoadedModel& model) {
  const auto weights = cast_weights(model.config, model.weights, at::kDouble);
  const ForwardOptions options{.drop_tokens = false};
  const auto ids = at::arange(2, 42, at::kLong).view({2, 20});
  const auto encoded = encode(model.config, weights, {ids}, options);
  return output_logits(weights, decode(model.config, weights, {ids}, encoded.hidden, {}, options).hidden);
}

TEST(Upcycle, TheSparseModelStartsOutAsTheDenseOne) {
  const auto dense = dense_model();
  const auto before = logits_of(dense);
  for (const int64_t num_experts : {2, 8}) {
    const auto sparse = upcycle(dense, {.num_experts = num_experts, .sparse_step = 2, .seed = 5});
    const auto after = logits_of(sparse);
    EXPECT_LT((after - before).abs().max().item<double>(), 0.05 * before.abs().max().item<double>()) << num_experts;
    EXPECT_GT((after - before).abs().max().item<double>(), 0.0);  // it does go through routers
  }
}

TEST(Upcycle, CopiesTheLayerToEveryExpert) {
  const auto dense = dense_model();
  const auto sparse = upcycle(dense, {.num_experts = 4, .sparse_step = 2, .seed = 5});
  EXPECT_TRUE(sparse.config.is_sparse_decoder_layer(1));
  EXPECT_FALSE(sparse.config.is_sparse_decoder_layer(0));
  const auto& from = dense.weights.decoder.blocks[1].feed_forward;
  const auto& to = sparse.weights.decoder.blocks[1].feed_forward;
  ASSERT_EQ(to.wi.sizes(), (std::vector<int64_t>{4, 128, 64}));
  for (int64_t expert = 0; expert < 4; ++expert) {
    EXPECT_TRUE(at::equal(to.wi[expert], from.wi));
    EXPECT_TRUE(at::equal(to.wo[expert], from.wo * 4));
  }
  EXPECT_FALSE(at::equal(to.router.weight[0], to.router.weight[1]));
  EXPECT_FALSE(at::equal(to.router.weight, sparse.weights.encoder.blocks[1].feed_forward.router.weight));
  EXPECT_FALSE(
      at::equal(to.router.weight,
                upcycle(dense, {.num_experts = 4, .seed = 6}).weights.decoder.blocks[1].feed_forward.router.weight));
  ScratchFolder folder;
  save_model(folder / "sparse", sparse.config, sparse.weights);
  expect_equal_weights(sparse.config, sparse.weights, open_model(folder / "sparse", at::kFloat).weights);
}

TEST(Upcycle, RefusesWhatCannotBe) {
  const auto dense = dense_model();
  EXPECT_THAT([&] { upcycle(dense, {.num_experts = 1}); }, ThrowsMessage<Error>(HasSubstr("at least 2")));
  EXPECT_THAT([&] { upcycle(dense, {.sparse_step = 3}); }, ThrowsMessage<Error>(HasSubstr("encoder_sparse_step is 3")));
  const auto sparse = upcycle(dense, {});
  EXPECT_THAT([&] { upcycle(sparse, {}); }, ThrowsMessage<Error>(HasSubstr("has experts already")));
}

}  // namespace
}  // namespace switchyard
