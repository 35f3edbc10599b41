// Requests as JSON: every key, its bounds, and results.
#include "generate/request.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"

namespace switchyard {
namespace {

Request read(const std::string& text, const RequestLimits& limits = {}) {
  return read_request(parse_json(text, "test"), nullptr, limits);
}

std::string message_of(const std::string& text, const RequestLimits& limits = {}) {
  try {
    read(text, limits);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Request, EveryKeyIsRead) {
  const auto request = read(R"({"prompt": [5, 6, 1], "decoder_prompt": [7], "max_tokens": 9, "min_tokens": 2, "n": 3,
      "seed": 11, "temperature": 0.5, "top_k": 4, "top_p": 0.9, "typical_p": 0.8, "beams": 1, "length_penalty": 0.6,
      "early_stopping": "never", "repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "stop": ["a", "b"]})");
  EXPECT_EQ(request.ids, (std::vector<int32_t>{5, 6, 1}));
  EXPECT_EQ(request.prefix, (std::vector<int32_t>{7}));
  const auto& search = request.search;
  EXPECT_EQ(search.max_tokens, 9);
  EXPECT_EQ(search.rules.min_tokens, 2);
  EXPECT_EQ(search.num_results, 3);
  EXPECT_EQ(search.sampling.seed, 11u);
  EXPECT_EQ(search.sampling.temperature, 0.5);
  EXPECT_EQ(search.sampling.top_k, 4);
  EXPECT_EQ(search.sampling.top_p, 0.9);
  EXPECT_EQ(search.sampling.typical_p, 0.8);
  EXPECT_EQ(search.beams.length_penalty, 0.6);
  EXPECT_EQ(search.beams.early_stopping, EarlyStopping::kNever);
  EXPECT_EQ(search.rules.repetition_penalty, 1.2);
  EXPECT_EQ(search.rules.no_repeat_ngram_size, 3);
  EXPECT_EQ(request.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(read(R"({"prompt": [5], "stop": "one"})").stop, (std::vector<std::string>{"one"}));
  EXPECT_EQ(read(R"({"prompt": [5], "top_k": 3})").search.sampling.temperature, 1.0) << "who filters wants to draw";
  EXPECT_EQ(read(R"({"prompt": [5], "beams": 4, "n": 2})").search.beams.num_beams, 4);
}

TEST(Request, AbsentKeysKeepTheDefaults) {
  Request defaults;
  defaults.search.max_tokens = 7;
  defaults.stop = {"x"};
  const auto request = read_request(parse_json(R"({"prompt": [5]})", "test"), nullptr, {}, defaults);
  EXPECT_EQ(request.search.max_tokens, 7);
  EXPECT_EQ(request.stop, defaults.stop);
}

TEST(Request, WhatDoesNotFitNamesItsKey) {
  const RequestLimits limits{.prompt_bytes = 100, .prompt_tokens = 4, .max_tokens = 10, .rows = 2};
  const std::pair<const char*, const char*> cases[] = {
      {R"([1])", "expected an object"},
      {R"({})", "prompt"},
      {R"({"prompt": []})", "prompt"},
      {R"({"prompt": 5})", "prompt: expected a text or a list of ids"},
      {R"({"prompt": "text"})", "vocabulary"},
      {R"({"prompt": [5, "x"]})", "prompt"},
      {R"({"prompt": [-1]})", "-1 is no token id"},
      {R"({"prompt": [99999999999]})", "no token id"},
      {R"({"prompt": [1, 2, 3, 4, 5]})", "at most 4"},
      {R"({"prompt": [1], "decoder_prompt": [1, 2, 3, 4, 5]})", "decoder_prompt: 5 ids; at most 4"},
      {R"({"prompt": [1], "max_tokens": 11})", "max_tokens: 11; expected 1 to 10"},
      {R"({"prompt": [1], "max_tokens": 0})", "max_tokens"},
      {R"({"prompt": [1], "max_tokens": "many"})", "max_tokens"},
      {R"({"prompt": [1], "max_token": 3})", "max_tokens"},
      {R"({"prompt": [1], "n": 3, "temperature": 1})", "n: 3; expected 1 to 2"},
      {R"({"prompt": [1], "n": 2})", "temperature"},
      {R"({"prompt": [1], "beams": 3})", "beams: 3"},
      {R"({"prompt": [1], "beams": 2, "temperature": 1})", "beam search does not sample"},
      {R"({"prompt": [1], "temperature": -1})", "temperature"},
      {R"({"prompt": [1], "top_p": 2})", "top-p"},
      {R"({"prompt": [1], "stop": [""]})", "stop"},
      {R"({"prompt": [1], "stop": 3})", "stop"},
      {R"({"prompt": [1], "early_stopping": "maybe"})", "early_stopping"},
  };
  for (const auto& [text, part] : cases) {
    const auto message = message_of(text, limits);
    EXPECT_NE(message.find(part), std::string::npos) << text << " gave \"" << message << "\"";
  }
  EXPECT_NE(message_of(R"({"prompt": [1], "stop": [)" + std::string(R"("a",)") + "\"" + std::string(2000, 'b') + "\"]}")
                .find("stop: a text of 2000 bytes"),
            std::string::npos);
}

TEST(Result, FirstOutputAndTheOthers) {
  Request request;
  request.prompt = "5 6";
  const auto json = result_json(request, {{{7, 8, 1}, -0.5}, {{9, 1}, -2.0}}, nullptr);
  EXPECT_EQ(json.dump(), R"({"prompt":"5 6","text":"7 8 1","ids":[7,8,1],"score":-0.5,)"
                         R"("others":[{"text":"9 1","ids":[9,1],"score":-2.0}]})");
  EXPECT_THROW(result_json(request, {}, nullptr), Error);
}

}  // namespace
}  // namespace switchyard
