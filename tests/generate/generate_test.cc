// Generation with small random models: steps against the whole decoder, batches against single prompts, scores.
#include "generate/generate.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "base/error.h"
#include "model/decoder_cache.h"
#include "model/parameters.h"

namespace switchyard {
namespace {

using Ids = std::vector<int32_t>;

ModelConfig small_config() {
  ModelConfig config;
  config.vocab_size = 128;
  config.d_model = 32;
  config.d_ff = 64;
  config.d_kv = 8;
  config.num_heads = 4;
  config.num_encoder_layers = 2;
  config.num_decoder_layers = 3;
  config.encoder_sparse_step = config.decoder_sparse_step = 2;
  config.routing.num_experts = 4;
  config.initializer_scale = 1.0;
  config.tie_output = config.scale_output = false;
  return config;
}

struct Model {
  ModelConfig config;
  ComputeWeights weights;

  explicit Model(at::ScalarType dtype = at::kDouble, const ModelConfig& model_config = small_config())
      : config(model_config) {
    at::set_num_threads(1);  // the products are too small to share out
    auto made = initialize(config, /*seed=*/3);
    // A fresh model hardly looks at its prompt; larger position bias and cross-attention make every part count.
    made.encoder.relative_attention_bias = made.encoder.relative_attention_bias * 10;
    made.decoder.relative_attention_bias = made.decoder.relative_attention_bias * 10;
    for (auto& block : made.decoder.blocks) {
      block.cross_attention.q = block.cross_attention.q * 4;
      block.cross_attention.o = block.cross_attention.o * 4;
    }
    weights = cast_weights(config, made, dtype);
  }
};

std::vector<Prompt> random_prompts(const std::vector<size_t>& lengths, uint32_t seed = 1) {
  std::mt19937 generator(seed);
  std::uniform_int_distribution<int32_t> id(2, 127);
  std::vector<Prompt> prompts;
  for (const size_t length : lengths) {
    auto& prompt = prompts.emplace_back();
    for (size_t n = 0; n < length; ++n) prompt.ids.push_back(id(generator));
    prompt.ids.push_back(1);
  }
  return prompts;
}

at::Tensor row_of(const Ids& ids) {
  return at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong).unsqueeze(0);
}

// Relative to the largest element.
double difference(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).abs().max() / b.abs().max()).item().toDouble();
}

// decode_step over single tokens and over pieces gives the hidden states of decode() over the whole sequence.
TEST(DecodeStep, EqualsTheWholeDecoder) {
  for (const auto& [dtype, tolerance] : {std::pair{at::kDouble, 1e-12}, std::pair{at::kFloat, 2e-5}}) {
    const at::NoGradGuard no_grad;
    const Model model(dtype);
    const auto prompts = random_prompts({11, 11});
    const auto ids = at::cat({row_of(prompts[0].ids), row_of(prompts[1].ids)});
    auto mask = at::ones(ids.sizes(), at::kBool);
    mask.select(0, 1).slice(0, 7).fill_(false);
    const auto encoded = encode(model.config, model.weights, ids, mask, {.drop_tokens = false});
    const auto outputs = random_prompts({19, 19}, 2);
    const auto decoder_ids = at::cat({row_of(outputs[0].ids), row_of(outputs[1].ids)});
    const auto whole =
        decode(model.config, model.weights, decoder_ids, {}, encoded.hidden, mask, {.drop_tokens = false}).hidden;
    for (const int64_t piece : {1, 4}) {
      DecoderCache cache(model.config, model.weights, /*slots=*/2, /*max_length=*/20);
      const auto slots = cache.add_rows(model.weights, encoded.hidden, mask);
      for (int64_t start = 0; start < 20; start += piece) {
        const auto step =
            decode_step(model.config, model.weights, cache, slots, decoder_ids.slice(1, start, start + piece));
        EXPECT_LT(difference(step, whole.slice(1, start, start + piece)), tolerance)
            << "positions from " << start << ", " << piece << " at once";
      }
      EXPECT_THROW(decode_step(model.config, model.weights, cache, slots, decoder_ids.slice(1, 0, 1)), Error)
          << "the cache is full";
    }
  }
}

TEST(Generate, GreedyFollowsTheWholeDecodersArgmax) {
  const Model model;
  const auto prompts = random_prompts({5, 17, 9});
  const auto results = generate(model.config, model.weights, prompts, {.search = {.max_tokens = 20}});
  ASSERT_EQ(results.size(), prompts.size());
  const at::NoGradGuard no_grad;
  std::set<Ids> different;
  for (size_t n = 0; n < prompts.size(); ++n) {
    const auto& output = results[n][0];
    const auto encoded = encode(model.config, model.weights, row_of(prompts[n].ids), {}, {.drop_tokens = false});
    double score = 0;
    Ids inputs = {0};
    for (const int32_t id : output.ids) {
      const auto hidden =
          decode(model.config, model.weights, row_of(inputs), {}, encoded.hidden, {}, {.drop_tokens = false}).hidden;
      const auto log_probabilities = at::log_softmax(output_logits(model.weights, hidden.select(1, -1)), -1).squeeze(0);
      EXPECT_EQ(log_probabilities.argmax().item().toInt(), id) << "prompt " << n << ", position " << inputs.size() - 1;
      score += log_probabilities[id].item().toDouble();
      inputs.push_back(id);
    }
    EXPECT_NEAR(output.score, score, 1e-4);
    EXPECT_TRUE(output.ids.back() == 1 || output.ids.size() == 20);
    different.insert(output.ids);
  }
  EXPECT_EQ(different.size(), 3u) << "prompts that do not matter prove nothing";
}

TEST(Generate, ABatchGivesWhatEachPromptGivesAlone) {
  const Model model;
  const auto prompts = random_prompts({5, 17, 9, 2, 30});
  for (const GenerateOptions& options :
       {GenerateOptions{.search = {.max_tokens = 25}},
        GenerateOptions{.search = {.max_tokens = 25, .beams = {.num_beams = 4, .num_results = 4}}},
        GenerateOptions{.search = {.max_tokens = 25, .sampling = {.temperature = 1.0, .top_p = 0.95, .seed = 5}}}}) {
    const auto together = generate(model.config, model.weights, prompts, options);
    auto pairs_options = options;
    pairs_options.batch_size = 2;
    const auto in_pairs = generate(model.config, model.weights, prompts, pairs_options);
    for (size_t n = 0; n < prompts.size(); ++n) {
      auto single_options = options;
      single_options.search.first_prompt = n;
      const auto alone = generate(model.config, model.weights, {prompts[n]}, single_options);
      ASSERT_EQ(alone[0].size(), together[n].size());
      for (size_t rank = 0; rank < alone[0].size(); ++rank) {
        EXPECT_EQ(alone[0][rank].ids, together[n][rank].ids) << "prompt " << n;
        EXPECT_EQ(alone[0][rank].ids, in_pairs[n][rank].ids) << "prompt " << n;
        EXPECT_NEAR(alone[0][rank].score, together[n][rank].score, 1e-4);
      }
    }
  }
}

// Every beam's state follows it through the cache: its score is that of its tokens.
TEST(Generate, ABeamsScoreIsItsLogProbability) {
  const Model model;
  const auto prompts = random_prompts({5, 17, 9});
  const auto results =
      generate(model.config, model.weights, prompts,
               {.search = {.max_tokens = 15, .beams = {.num_beams = 4, .length_penalty = 0.5, .num_results = 4}}});
  for (size_t n = 0; n < prompts.size(); ++n)
    for (const auto& [ids, score] : results[n]) {
      const auto scored = score_targets(model.config, model.weights, {prompts[n].ids}, {ids}, 1);
      EXPECT_NEAR(score, scored[0].score / std::sqrt(static_cast<double>(ids.size())), 1e-4) << "prompt " << n;
    }
}

// Slots for a fraction of the tokens would drop most of a prompt.
TEST(Generate, CapacityByFactorDropsNothing) {
  auto tight = small_config();
  tight.routing.eval_capacity_factor = 0.1;
  tight.routing.min_expert_capacity = 1;
  const auto prompts = random_prompts({12, 25, 9});
  const GenerateOptions options{.search = {.max_tokens = 15}};
  const Model roomy, limited(at::kDouble, tight);
  const auto expected = generate(roomy.config, roomy.weights, prompts, options);
  const auto results = generate(limited.config, limited.weights, prompts, options);
  for (size_t n = 0; n < prompts.size(); ++n) EXPECT_EQ(results[n][0].ids, expected[n][0].ids) << "prompt " << n;
}

TEST(Generate, AnAbsoluteCapacityOfASequenceActsInTheEncoderOnly) {
  auto absolute = small_config();
  absolute.routing.group_size = 0;
  absolute.routing.expert_capacity = 2;
  const Model roomy, limited(at::kDouble, absolute);
  const auto prompts = random_prompts({25, 12, 30});
  const GenerateOptions options{.search = {.max_tokens = 15}};
  const auto free_run = generate(roomy.config, roomy.weights, prompts, options);
  const auto results = generate(limited.config, limited.weights, prompts, options);
  EXPECT_NE(results[0][0].score, free_run[0][0].score);
  const at::NoGradGuard no_grad;
  for (size_t n = 0; n < prompts.size(); ++n) {
    const auto encoded = encode(limited.config, limited.weights, row_of(prompts[n].ids), {}, {});  // as in evaluation
    auto inputs = results[n][0].ids;
    inputs.insert(inputs.begin(), 0);
    inputs.pop_back();
    const auto hidden =
        decode(limited.config, limited.weights, row_of(inputs), {}, encoded.hidden, {}, {.drop_tokens = false}).hidden;
    const auto chosen = output_logits(limited.weights, hidden).argmax(-1);
    EXPECT_TRUE(chosen.equal(row_of(results[n][0].ids))) << "prompt " << n;
  }
}

TEST(Generate, PaddingInAPromptChangesNothing) {
  const Model model;
  auto prompts = random_prompts({6});
  const auto plain = generate(model.config, model.weights, prompts, {.search = {.max_tokens = 10}});
  prompts[0].ids.insert(prompts[0].ids.end(), 5, 0);
  const auto padded = generate(model.config, model.weights, prompts, {.search = {.max_tokens = 10}});
  EXPECT_EQ(plain[0][0].ids, padded[0][0].ids);
  EXPECT_NEAR(plain[0][0].score, padded[0][0].score, 1e-5);
}

TEST(Generate, APrefixIsKeptAndCountsNothing) {
  const Model model;
  auto prompts = random_prompts({6, 8});
  const auto free_run = generate(model.config, model.weights, prompts, {.search = {.max_tokens = 12}});
  prompts[0].prefix = {free_run[0][0].ids.begin(), free_run[0][0].ids.begin() + 3};
  const auto forced = generate(model.config, model.weights, prompts, {.search = {.max_tokens = 9}});
  EXPECT_EQ(forced[0][0].ids, free_run[0][0].ids);
  EXPECT_GT(forced[0][0].score, free_run[0][0].score);
}

TEST(ScoreTargets, AGeneratedOutputHasItsScore) {
  const Model model;
  const auto prompts = random_prompts({5, 17, 9});
  const auto results =
      generate(model.config, model.weights, prompts, {.search = {.max_tokens = 20, .sampling = {.temperature = 1.0}}});
  std::vector<Ids> inputs, targets;
  for (size_t n = 0; n < prompts.size(); ++n) {
    inputs.push_back(prompts[n].ids);
    targets.push_back(results[n][0].ids);
  }
  targets[1].resize(4);
  for (const int64_t batch_size : {1, 2, 8}) {
    const auto scored = score_targets(model.config, model.weights, inputs, targets, batch_size);
    ASSERT_EQ(scored.size(), 3u);
    EXPECT_NEAR(scored[0].score, results[0][0].score, 1e-4);
    EXPECT_NEAR(scored[2].score, results[2][0].score, 1e-4);
    EXPECT_EQ(scored[1].token_log_probabilities.size(), 4u);
    EXPECT_GT(scored[1].score, results[1][0].score);
  }
}

TEST(Generate, WhatDoesNotFitIsAnError) {
  const Model model;
  const auto run = [&](const std::vector<Prompt>& prompts, const GenerateOptions& options) {
    return generate(model.config, model.weights, prompts, options);
  };
  EXPECT_THROW(run({{{}, {}}}, {}), Error);
  EXPECT_THROW(run({{{0, 0}, {}}}, {}), Error);
  EXPECT_THROW(run({{{5, 128}, {}}}, {}), Error);
  EXPECT_THROW(run({{{5, -1}, {}}}, {}), Error);
  EXPECT_THROW(run({{{5}, {128}}}, {}), Error);
  EXPECT_THROW(run({{{5}, {}}}, {.batch_size = 0}), Error);
  EXPECT_THROW(run({{{5}, {}}}, {.search = {.rules = {.bad_words = {{500}}}}}), Error);
  EXPECT_TRUE(run({}, {}).empty());
}

}  // namespace
}  // namespace switchyard
