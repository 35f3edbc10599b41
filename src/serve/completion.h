// OpenAI's form of completions: what /v1/completions is asked and answers. `prompt` is what the encoder reads;
// `decoder_prompt` is what every output begins with.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "generate/request.h"
#include "generate/score.h"

namespace switchyard {

struct Completion {
  std::vector<Request> requests;  // one a prompt
  bool stream = false;
  bool echo = false;                              // texts begin with the decoder's prompt
  std::optional<int64_t> logprobs = {};           // log-probabilities of tokens, and of so many others in their places
  bool generates = true;                          // false, by max_tokens 0: the decoder's prompt is scored and repeated
  std::vector<std::vector<int32_t>> echoed = {};  // of each prompt, ids of the encoder that are repeated as well
};

// Reads the body of a request. Keys are those of generate/request.h and echo, logprobs, stream, and model and user
// (ignored); a null value is as if it was absent; `prompt` may be a list of texts or of lists of ids. Throws Error, as
// read_request() does, naming the key.
//
// Who asks for echo and logprobs without a decoder_prompt has one sequence to score, as a decoder-only model would. Of
// a list of ids, what follows its last EOS (but for one at its very end) is the decoder's, and what comes before, EOS
// included, the encoder's; where there is no such EOS, or the prompt is a text, all of it is the decoder's, and the
// encoder reads EOS alone. Answers then repeat the whole sequence, token by token; the encoder's have no
// log-probability.
Completion read_completion(const std::string& body, const Vocabulary& vocabulary, const RequestLimits& limits);

// A request with its outputs and, where they were asked for, the scores of each output's tokens.
struct Answered {
  Request request = {};
  Hypotheses outputs = {};
  std::vector<std::vector<TokenScore>> scores = {};
};

// The outputs of requests that do not generate: the decoder's prompt.
Hypotheses decoder_prompt_alone(const Request& request);

// Bytes of an output's text that repeat the decoder's prompt.
size_t echoed_bytes(const Request& request, const Vocabulary& vocabulary);

// Why an output ended: "stop" at its EOS or a stop string, "length" at max_tokens.
const char* finish_reason(const Request& request, const Hypothesis& output, const Vocabulary& vocabulary);

// Who answers what, and when: `created` is in seconds since 1970.
struct CompletionName {
  std::string id, model;
  int64_t created = 0;
};

Json completion_json(const CompletionName& name, const Completion& completion, const std::vector<Answered>& answers,
                     const Vocabulary& vocabulary);

// What a choice of a stream adds; at its end why, and the ids that were generated.
struct Piece {
  size_t index = 0;
  std::string text;
  std::optional<std::string> reason = {};
  std::vector<int32_t> tokens = {};
};

// One event of a stream.
Json chunk_json(const CompletionName& name, const Piece& piece);

// The ids of an output behind the decoder's prompt.
std::vector<int32_t> generated_ids(const Request& request, const Hypothesis& output);

// {"error": {"message", "type", "code"}} for a status of HTTP.
Json error_json(int status, const std::string& message);

}  // namespace switchyard
