// Rows of a cache that begin, fork and end at different times, against the whole decoder.
#include "model/decoder_cache.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "testing/model.h"

namespace switchyard {
namespace {

struct Model {
  ModelConfig config;
  ComputeWeights weights;

  Model() : config(test::tiny_model()) {
    auto made = initialize(config, 5);
    made.decoder.relative_attention_bias = made.decoder.relative_attention_bias * 10;
    weights = cast_weights(config, made, at::kDouble);
  }

  at::Tensor hidden(int64_t length) const {
    return encode(config, weights, {at::randint(2, 64, {1, length}, at::kLong)}, {.drop_tokens = false}).hidden;
  }
  // The hidden state of the last of ids [1, length], by teacher forcing.
  at::Tensor last(const at::Tensor& ids, const at::Tensor& encoder_hidden, const at::Tensor& mask = {}) const {
    return decode(config, weights, {ids}, encoder_hidden, {.mask = mask}, {.drop_tokens = false}).hidden.select(1, -1);
  }
};

TEST(DecoderCache, RowsBeginForkAndEndAtAnyTime) {
  const at::NoGradGuard no_grad;
  const Model model;
  const auto first_hidden = model.hidden(5), second_hidden = model.hidden(11);
  const auto ids = at::randint(2, 64, {3, 9}, at::kLong);  // of three rows, the third a fork of the first
  DecoderCache cache(model.weights, /*slots=*/3, /*max_length=*/9);
  const auto step = [&](const std::vector<int64_t>& slots, const std::vector<at::Tensor>& columns) {
    return decode_step(model.config, model.weights, cache, slots, at::cat(columns));
  };
  const auto column = [&](int64_t row, int64_t position) {
    return ids.slice(0, row, row + 1).slice(1, position, position + 1);
  };
  const auto expect_last = [&](const at::Tensor& got, const at::Tensor& inputs, const at::Tensor& hidden,
                               const char* what) {
    EXPECT_TRUE(at::allclose(got, model.last(inputs, hidden).squeeze(0), 1e-10, 1e-10)) << what;
  };

  auto first = cache.add_rows(model.weights, first_hidden, {}).at(0);
  for (int64_t position = 0; position < 4; ++position) step({first}, {column(0, position)});
  const auto second = cache.add_rows(model.weights, second_hidden, {}).at(0);  // a longer prompt moves the first's keys
  auto out = step({second, first}, {column(1, 0), column(0, 4)});
  expect_last(out[0][0], ids.slice(0, 1, 2).slice(1, 0, 1), second_hidden, "the row that joined");
  expect_last(out[1][0], ids.slice(0, 0, 1).slice(1, 0, 5), first_hidden, "the row that was there");

  const auto forked = cache.replace_rows({first}, {first, first});
  EXPECT_EQ(forked[0], first) << "the first child stays where its parent was";
  EXPECT_EQ(cache.free_slots(), 0);
  EXPECT_THROW(cache.replace_rows({second}, {second, second}), Error);
  EXPECT_THROW(cache.add_rows(model.weights, first_hidden, {}), Error);
  out = step({forked[1], second, first}, {column(2, 5), column(1, 1), column(0, 5)});
  const auto fork_ids = at::cat({ids.slice(0, 0, 1).slice(1, 0, 5), column(2, 5)}, 1);
  expect_last(out[0][0], fork_ids, first_hidden, "the fork");
  expect_last(out[1][0], ids.slice(0, 1, 2).slice(1, 0, 2), second_hidden, "beside it");
  expect_last(out[2][0], ids.slice(0, 0, 1).slice(1, 0, 6), first_hidden, "its parent");

  // The parent ends; its prompt goes on with the fork, and a new row takes the place.
  EXPECT_TRUE(cache.replace_rows({first, second}, {}).empty());
  EXPECT_EQ(cache.free_slots(), 2);
  auto mask = at::ones({1, 11}, at::kBool);
  mask.slice(1, 0, 4).fill_(false);
  const auto third = cache.add_rows(model.weights, second_hidden, mask).at(0);
  out = step({third, forked[1]}, {column(1, 0), column(1, 6)});
  EXPECT_TRUE(
      at::allclose(out[0][0], model.last(ids.slice(0, 1, 2).slice(1, 0, 1), second_hidden, mask)[0], 1e-10, 1e-10));
  expect_last(out[1][0], at::cat({fork_ids, column(1, 6)}, 1), first_hidden, "the fork without its parent");
}

TEST(DecoderCache, RefusesWhatDoesNotFit) {
  const Model model;
  DecoderCache cache(model.weights, /*slots=*/2, /*max_length=*/3);
  const auto slots = cache.add_rows(model.weights, model.hidden(4), {});
  const auto ids = at::ones({1, 4}, at::kLong);
  EXPECT_THROW(decode_step(model.config, model.weights, cache, slots, ids), Error) << "beyond max_length";
  EXPECT_THROW(decode_step(model.config, model.weights, cache, {1}, ids.slice(1, 0, 1)), Error) << "no row there";
  EXPECT_THROW(decode_step(model.config, model.weights, cache, {7}, ids.slice(1, 0, 1)), Error);
  EXPECT_EQ(cache.length(slots[0]), 0) << "a refused step leaves the row as it was";
  EXPECT_THROW(cache.replace_rows({slots[0]}, {1}), Error);
  EXPECT_THROW(DecoderCache(model.weights, 0, 3), Error);
}

}  // namespace
}  // namespace switchyard
