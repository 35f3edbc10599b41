// What is asked of a model, and how requests and results are written as JSON: the same for the command line, a server
// and Python.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/config.h"
#include "generate/search.h"
#include "text/vocabulary.h"

namespace switchyard {

struct Request {
  std::string prompt = {};           // as it was given: repeated in the result, its blanks filled in
  std::vector<int32_t> ids = {};     // encoder tokens, EOS as given; 0 is padding and masked
  std::vector<int32_t> prefix = {};  // decoder tokens that every output begins with
  SearchOptions search = {};
  std::vector<std::string> stop = {};  // an output ends where its text holds one of them, and is cut there
};

// What is refused before anything is computed or allocated for it.
struct RequestLimits {
  size_t prompt_bytes = 1 << 20;
  size_t prompt_tokens = 1 << 15;  // of the prompt and of the decoder's prompt, each
  int64_t max_tokens = 1 << 15;
  int64_t rows = 64;  // beams or samples
};

// Reads an object with the keys of request_keys(): `prompt` and `decoder_prompt` are texts or lists of ids (ids are
// taken as given, a prompt's text gets its EOS), `seed` and `n` go by OpenAI's names. Keys that are absent keep what
// `defaults` has. Throws Error naming the key: unknown (with the nearest known one), of another type, out of range,
// beyond a limit, or text without a vocabulary (null).
Request read_request(const Json& json, const Vocabulary* vocabulary, const RequestLimits& limits,
                     const Request& defaults = {});
std::vector<std::string> request_keys();

// A text, encoded (with EOS at its end if asked for), or a list of ids as they are. Throws Error as read_request().
std::vector<int32_t> read_tokens(const Json& value, const std::string& key, const Vocabulary* vocabulary,
                                 const RequestLimits& limits, bool with_eos);

// The text of an output, cut at the first stop string; with no vocabulary (null) its ids separated by spaces.
std::string output_text(const Request& request, const Hypothesis& output, const Vocabulary* vocabulary);

// {"prompt", "text", "ids", "score"} of the first output, "filled" where the prompt has blanks, and "others": the
// further outputs. Throws Error if there is no output.
Json result_json(const Request& request, const Hypotheses& outputs, const Vocabulary* vocabulary);

}  // namespace switchyard
