// Generation with small random models: against the whole decoder, and a request alone against the same one in company.
#include "generate/session.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "base/error.h"
#include "generate/score.h"
#include "model/parameters.h"
#include "testing/model.h"

namespace switchyard {
namespace {

using Ids = std::vector<int32_t>;

ModelConfig small_config() {
  auto config = test::fast_tiny_model();
  config.vocab_size = 128;
  config.num_decoder_layers = 3;
  config.tie_output = config.scale_output = false;
  return config;
}

struct Model {
  ModelConfig config;
  ComputeWeights weights;

  explicit Model(at::ScalarType dtype = at::kFloat, const ModelConfig& model_config = small_config())
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

std::vector<Request> random_requests(const std::vector<size_t>& lengths, uint32_t seed = 1) {
  std::mt19937 generator(seed);
  std::uniform_int_distribution<int32_t> id(2, 127);
  std::vector<Request> requests;
  for (const size_t length : lengths) {
    auto& ids = requests.emplace_back().ids;
    for (size_t n = 0; n < length; ++n) ids.push_back(id(generator));
    ids.push_back(1);
  }
  return requests;
}

at::Tensor row_of(const Ids& ids) {
  return at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong).unsqueeze(0);
}

Hypotheses alone(const Model& model, const Request& request) {
  const int64_t length = static_cast<int64_t>(request.prefix.size()) + request.search.max_tokens;
  return generate_all(model.config, model.weights, nullptr, {request},
                      {.rows = most_rows(request.search), .max_length = length})[0];
}

std::vector<Hypotheses> all(const Model& model, std::vector<Request> requests, const SearchOptions& search,
                            int64_t rows = 8) {
  for (size_t n = 0; n < requests.size(); ++n) {
    requests[n].search = search;
    requests[n].search.number = n;
  }
  return generate_all(model.config, model.weights, nullptr, requests, {.rows = rows, .max_length = 40});
}

void expect_equal(const Hypotheses& a, const Hypotheses& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (size_t rank = 0; rank < a.size(); ++rank) {
    EXPECT_EQ(a[rank].ids, b[rank].ids) << what << ", output " << rank;
    EXPECT_EQ(a[rank].score, b[rank].score) << what << ", output " << rank << ": to the bit";
  }
}

TEST(Session, GreedyFollowsTheWholeDecodersArgmax) {
  const Model model(at::kDouble);
  const auto requests = random_requests({5, 17, 9});
  const auto results = all(model, requests, {.max_tokens = 20});
  ASSERT_EQ(results.size(), requests.size());
  const at::NoGradGuard no_grad;
  std::set<Ids> different;
  for (size_t n = 0; n < requests.size(); ++n) {
    const auto& output = results[n][0];
    const auto encoded = encode(model.config, model.weights, {row_of(requests[n].ids)}, {.drop_tokens = false});
    double score = 0;
    Ids inputs = {0};
    for (const int32_t id : output.ids) {
      const auto hidden =
          decode(model.config, model.weights, {row_of(inputs)}, encoded.hidden, {}, {.drop_tokens = false}).hidden;
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

// Greedy, samples and beams of prompts of different lengths, with rules, prefixes and ends of their own.
std::vector<Request> mixed_requests() {
  auto requests = random_requests({5, 17, 9, 2, 30, 1, 17, 64, 3, 12});
  for (size_t n = 0; n < requests.size(); ++n)
    requests[n].search = {.max_tokens = 6 + static_cast<int64_t>(n % 4) * 6, .number = n};
  requests[1].search.sampling = {.temperature = 1.0, .top_p = 0.95, .seed = 5};
  requests[2].search.beams.num_beams = 4;
  requests[2].search.num_results = 4;
  requests[4].search.sampling = {.temperature = 1.3, .seed = 9};
  requests[4].search.num_results = 3;
  requests[5].prefix = {9, 33, 12, 7, 101};
  requests[6].search.beams.num_beams = 3;
  requests[6].prefix = {44};
  requests[7].search.rules = {.repetition_penalty = 1.5, .no_repeat_ngram_size = 2, .min_tokens = 4};
  requests[8].search.sampling = {.temperature = 0.7, .top_k = 20, .seed = 5};
  return requests;
}

// To the bit: in any order and number, also where the running batch has more rows than one product takes.
TEST(Session, AResultNeverDependsOnItsCompanions) {
  auto expert_choice = small_config();
  expert_choice.routing.router = RouterKind::kExpertChoice;
  auto top_two = small_config();
  top_two.routing.num_selected_experts = 2;
  auto odd_sizes = small_config();
  odd_sizes.d_model = 48;
  odd_sizes.d_ff = 80;
  odd_sizes.vocab_size = 131;
  auto wide = small_config();
  wide.d_ff = 4096;  // rows beyond the first-level cache
  const std::pair<const char*, ModelConfig> configs[] = {{"switch", small_config()},
                                                         {"expert choice", expert_choice},
                                                         {"top two", top_two},
                                                         {"odd sizes", odd_sizes},
                                                         {"wide", wide}};
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const auto& [name, config] : configs) {
      const Model model(dtype, config);
      const auto requests = mixed_requests();
      std::vector<Hypotheses> expected;
      for (const auto& request : requests) expected.push_back(alone(model, request));
      for (const int64_t rows : {4, 9, 16}) {
        const auto results =
            generate_all(model.config, model.weights, nullptr, requests, {.rows = rows, .max_length = 40});
        for (size_t n = 0; n < requests.size(); ++n)
          expect_equal(results[n], expected[n], join(name, ", request ", n, " of ", rows, " rows"));
      }
      // Three times everything, backwards.
      std::vector<Request> many;
      for (int copy = 0; copy < 3; ++copy) many.insert(many.end(), requests.rbegin(), requests.rend());
      const auto results = generate_all(model.config, model.weights, nullptr, many, {.rows = 50, .max_length = 40});
      for (size_t n = 0; n < many.size(); ++n)
        expect_equal(results[n], expected[requests.size() - 1 - n % requests.size()], join(name, ", backwards ", n));
    }
}

TEST(Session, RequestsJoinLeaveAndAreCancelledWhileOthersRun) {
  const Model model;
  auto requests = mixed_requests();
  std::vector<Hypotheses> expected;
  for (const auto& request : requests) expected.push_back(alone(model, request));
  Session session(model.config, model.weights, nullptr, {.rows = 9, .max_length = 40});
  std::map<size_t, Hypotheses> got;
  std::map<size_t, std::vector<Ids>> tokens;  // by request and sample
  const auto listener = [&](size_t n) {
    return Listener{.on_token =
                        [&tokens, n](size_t sample, int32_t id) {
                          tokens[n].resize(std::max(tokens[n].size(), sample + 1));
                          tokens[n][sample].push_back(id);
                        },
                    .on_result =
                        [&got, n](const Request&, const Result& result) {
                          EXPECT_EQ(result.error, "");
                          got[n] = result.outputs;
                        }};
  };
  std::vector<uint64_t> ids;
  for (size_t n = 0; n < 5; ++n) ids.push_back(session.submit(requests[n], listener(n)));
  for (int step = 0; step < 3; ++step) session.step();
  EXPECT_TRUE(session.cancel(ids[2])) << "beams, amid their search";
  EXPECT_FALSE(session.cancel(ids[2]));
  for (size_t n = 5; n < 10; ++n) {
    ids.push_back(session.submit(requests[n], listener(n)));
    session.step();
  }
  EXPECT_TRUE(session.cancel(session.submit(requests[0], listener(99)))) << "before it began";
  while (session.step()) {
  }
  EXPECT_TRUE(session.is_idle());
  EXPECT_FALSE(session.cancel(ids[0])) << "long done";
  EXPECT_FALSE(got.contains(2) || got.contains(99));
  for (size_t n = 0; n < requests.size(); ++n) {
    if (n == 2) continue;
    expect_equal(got[n], expected[n], join("request ", n));
    if (requests[n].search.beams.num_beams > 1) {
      EXPECT_FALSE(tokens.contains(n)) << "beams are not told";
      continue;
    }
    for (size_t sample = 0; sample < got[n].size(); ++sample) {
      auto output = requests[n].prefix;
      output.insert(output.end(), tokens[n].at(sample).begin(), tokens[n].at(sample).end());
      EXPECT_EQ(output, got[n][sample].ids) << "request " << n << ", sample " << sample;
    }
  }
}

// A listener may submit and cancel: here each result brings the next request, and a token ends its own request.
TEST(Session, ListenersMaySubmitAndCancel) {
  const Model model;
  const auto requests = random_requests({5, 9, 12});
  Session session(model.config, model.weights, nullptr, {.rows = 2, .max_length = 200});
  std::vector<size_t> ended;
  std::function<void(size_t)> submit = [&](size_t n) {
    Request request = requests[n];
    request.search.max_tokens = 5;
    session.submit(request, {.on_result = [&, n](const Request&, const Result&) {
                     ended.push_back(n);
                     if (n + 1 < requests.size()) submit(n + 1);
                   }});
  };
  submit(0);
  Request endless = requests[1];
  endless.search = {.max_tokens = 200, .rules = {.min_tokens = 200}};
  uint64_t id = 0;
  int heard = 0;
  id = session.submit(endless, {.on_token =
                                    [&](size_t, int32_t) {
                                      if (++heard == 4) session.cancel(id);
                                    },
                                .on_result = [](const Request&, const Result&) { FAIL() << "it was cancelled"; }});
  while (session.step()) {
  }
  EXPECT_EQ(heard, 4);
  EXPECT_EQ(ended, (std::vector<size_t>{0, 1, 2}));
}

// Every beam's state follows it through the cache: its score is that of its tokens.
TEST(Session, ABeamsScoreIsItsLogProbability) {
  const Model model(at::kDouble);
  const auto requests = random_requests({5, 17, 9});
  const auto results =
      all(model, requests, {.max_tokens = 15, .num_results = 4, .beams = {.num_beams = 4, .length_penalty = 0.5}}, 12);
  for (size_t n = 0; n < requests.size(); ++n)
    for (const auto& [ids, score] : results[n]) {
      const auto scored = score_targets(model.config, model.weights, requests[n].ids, {ids}).at(0);
      EXPECT_NEAR(score, scored.score / std::sqrt(static_cast<double>(ids.size())), 1e-4) << "prompt " << n;
    }
}

// Slots for a fraction of the tokens would drop most of a prompt.
TEST(Session, CapacityByFactorDropsNothing) {
  auto tight = small_config();
  tight.routing.eval_capacity_factor = 0.1;
  tight.routing.min_expert_capacity = 1;
  const auto requests = random_requests({12, 25, 9});
  const Model roomy, limited(at::kFloat, tight);
  const auto expected = all(roomy, requests, {.max_tokens = 15}), results = all(limited, requests, {.max_tokens = 15});
  for (size_t n = 0; n < requests.size(); ++n) expect_equal(results[n], expected[n], join("prompt ", n));
}

TEST(Session, AnAbsoluteCapacityOfASequenceActsInTheEncoderOnly) {
  auto absolute = small_config();
  absolute.routing.group_size = 0;
  absolute.routing.expert_capacity = 2;
  const Model roomy(at::kDouble), limited(at::kDouble, absolute);
  const auto requests = random_requests({25, 12, 30});
  const auto free_run = all(roomy, requests, {.max_tokens = 15});
  const auto results = all(limited, requests, {.max_tokens = 15});
  EXPECT_NE(results[0][0].score, free_run[0][0].score);
  const at::NoGradGuard no_grad;
  for (size_t n = 0; n < requests.size(); ++n) {
    const auto encoded = encode(limited.config, limited.weights, {row_of(requests[n].ids)}, {});  // as in evaluation
    auto inputs = results[n][0].ids;
    inputs.insert(inputs.begin(), 0);
    inputs.pop_back();
    const auto hidden =
        decode(limited.config, limited.weights, {row_of(inputs)}, encoded.hidden, {}, {.drop_tokens = false}).hidden;
    const auto chosen = output_logits(limited.weights, hidden).argmax(-1);
    EXPECT_TRUE(chosen.equal(row_of(results[n][0].ids))) << "prompt " << n;
  }
}

TEST(Session, PaddingInAPromptChangesNothing) {
  const Model model(at::kDouble);
  auto requests = random_requests({6, 6, 6});
  requests[1].ids.insert(requests[1].ids.end(), 5, 0);
  requests[1].search = requests[0].search = {.max_tokens = 10};
  requests[1].ids = requests[0].ids;
  requests[1].ids.insert(requests[1].ids.end(), 5, 0);
  expect_equal(alone(model, requests[1]), alone(model, requests[0]), "behind the prompt");
  requests[2] = requests[0];
  requests[2].ids.insert(requests[2].ids.begin(), 3, 0);  // positions are relative
  EXPECT_EQ(alone(model, requests[2])[0].ids, alone(model, requests[0])[0].ids);
}

TEST(Session, APrefixIsKeptAndCountsNothing) {
  const Model model(at::kDouble);
  auto requests = random_requests({6, 8});
  const auto free_run = all(model, requests, {.max_tokens = 12});
  requests[0].prefix = {free_run[0][0].ids.begin(), free_run[0][0].ids.begin() + 3};
  const auto forced = all(model, requests, {.max_tokens = 9});
  EXPECT_EQ(forced[0][0].ids, free_run[0][0].ids);
  EXPECT_GT(forced[0][0].score, free_run[0][0].score);
}

TEST(ScoreTargets, AGeneratedOutputHasItsScore) {
  const Model model(at::kDouble);
  const auto requests = random_requests({5, 17});
  const auto results = all(model, requests, {.max_tokens = 20, .sampling = {.temperature = 1.0}});
  const auto score = [&](const std::vector<Ids>& targets) {
    return score_targets(model.config, model.weights, requests[1].ids, targets);
  };
  const auto& whole = results[1][0].ids;
  const auto scored = score({whole, {whole.begin(), whole.begin() + 4}, {0, 7}});
  ASSERT_EQ(scored.size(), 3u);
  EXPECT_NEAR(scored[0].score, results[1][0].score, 1e-4);
  EXPECT_EQ(scored[1].token_log_probabilities.size(), 4u);
  EXPECT_GT(scored[1].score, scored[0].score);
  EXPECT_EQ(scored[2].token_log_probabilities.size(), 2u) << "a target may hold id 0";
  EXPECT_THROW(score({{}}), Error);
  EXPECT_THROW(score({{128}}), Error);
}

TEST(Session, WhatDoesNotFitIsAnError) {
  const Model model;
  Session session(model.config, model.weights, nullptr, {.rows = 2, .max_length = 10});
  const auto submit = [&](Request request) { session.submit(std::move(request), {}); };
  const SearchOptions search{.max_tokens = 8};
  EXPECT_NO_THROW(submit({.ids = {5}, .prefix = {6, 7}, .search = search}));
  EXPECT_THROW(submit({.ids = {}, .search = search}), Error);
  EXPECT_THROW(submit({.ids = {0, 0}, .search = search}), Error);
  EXPECT_THROW(submit({.ids = {5, 128}, .search = search}), Error);
  EXPECT_THROW(submit({.ids = {5, -1}, .search = search}), Error);
  EXPECT_THROW(submit({.ids = {5}, .prefix = {128}, .search = search}), Error);
  EXPECT_THROW(submit({.ids = {5}, .prefix = {6, 7, 8}, .search = search}), Error) << "too long";
  EXPECT_THROW(submit({.ids = {5}, .search = search, .stop = {"text"}}), Error);
  EXPECT_THROW(submit({.ids = {5}, .search = {.max_tokens = 8, .rules = {.bad_words = {{500}}}}}), Error);
  EXPECT_THROW(submit({.ids = {5}, .search = {.max_tokens = 8, .beams = {.num_beams = 3}}}), Error);
  EXPECT_EQ(session.num_waiting(), 1u) << "what was refused is not there";
  EXPECT_THROW(Session(model.config, model.weights, nullptr, {.rows = 0}), Error);
}

// One request's weights may overflow where another's do not: it alone fails.
TEST(Session, AFailedRequestLeavesTheOthersAlone) {
  Model model;
  auto requests = random_requests({5, 9});
  requests[0].search = requests[1].search = {.max_tokens = 6};
  const auto expected = alone(model, requests[1]);
  auto& embedding = model.weights.encoder.embedding;
  embedding = embedding.clone();
  embedding[requests[0].ids[0]].fill_(std::numeric_limits<double>::quiet_NaN());
  ASSERT_EQ(std::count(requests[1].ids.begin(), requests[1].ids.end(), requests[0].ids[0]), 0);
  ASSERT_EQ(std::count(expected[0].ids.begin(), expected[0].ids.end(), requests[0].ids[0]), 0);
  Session session(model.config, model.weights, nullptr, {.rows = 2, .max_length = 10});
  std::vector<Result> results(2);
  for (size_t n = 0; n < 2; ++n)
    session.submit(requests[n], {.on_result = [&, n](const Request&, const Result& result) { results[n] = result; }});
  while (session.step()) {
  }
  EXPECT_NE(results[0].error.find("not finite"), std::string::npos) << results[0].error;
  EXPECT_EQ(results[1].error, "");
  expect_equal(results[1].outputs, expected, "beside one that fails");
}

}  // namespace
}  // namespace switchyard
