// OpenAI's form of completions: what /v1/completions is asked and answers. `prompt` is what the encoder reads;
// `decoder_prompt` is what every output begins with.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "generate/request.h"

namespace switchyard {

struct Completion {
  std::vector<Request> requests;  // one a prompt
  bool stream = false;
};

// Reads the body of a request. Keys are those of generate/request.h and model, stream, user (ignored, as is a null
// value); `prompt` may be a list of texts. Throws Error, as read_request() does, naming the key.
Completion read_completion(const std::string& body, const Vocabulary& vocabulary, const RequestLimits& limits);

// Why an output ended: "stop" at its EOS or a stop string, "length" at max_tokens.
const char* finish_reason(const Request& request, const Hypothesis& output);

// The answer to one or several prompts; `id` names it, `created` is in seconds since 1970.
struct Answered {
  Request request;
  Hypotheses outputs;
};
Json completion_json(const std::string& id, int64_t created, const std::string& model,
                     const std::vector<Answered>& answers, const Vocabulary& vocabulary);

// One event of a stream: what choice `index` adds, and at its end why.
Json chunk_json(const std::string& id, int64_t created, const std::string& model, size_t index, const std::string& text,
                std::optional<std::string> reason);

// {"error": {"message", "type", "code"}} for a status of HTTP.
Json error_json(int status, const std::string& message);

}  // namespace switchyard
