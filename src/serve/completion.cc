#include "serve/completion.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"

namespace switchyard {
namespace {

constexpr size_t kMostPrompts = 64;
constexpr int64_t kMostLikeliest = 20;

bool read_flag(const Json& value, const std::string& key) {
  SY_CHECK(value.is_boolean(), key, ": expected true or false, got ", value.type_name());
  return value.get<bool>();
}

// OpenAI's completions take a number, its chats (and some clients everywhere) true.
std::optional<int64_t> read_logprobs(const Json& value) {
  if (value.is_boolean()) return value.get<bool>() ? std::optional<int64_t>(0) : std::nullopt;
  int64_t number = 0;
  config_detail::read_value(value, "logprobs", number);
  SY_CHECK(number >= 0 && number <= kMostLikeliest, "logprobs: ", number, "; expected 0 to ", kMostLikeliest);
  return number;
}

std::vector<Json> read_prompts(const Json& prompt) {
  if (!prompt.is_array() || prompt.empty() || !(prompt.front().is_string() || prompt.front().is_array()))
    return {prompt};
  SY_CHECK(prompt.size() <= kMostPrompts, "prompt: ", prompt.size(), " texts; at most ", kMostPrompts, " are taken");
  std::vector<Json> prompts;
  for (const auto& each : prompt) prompts.push_back(each);
  return prompts;
}

void check_together(const Completion& completion) {
  SY_CHECK(!completion.stream || completion.requests.size() == 1, "stream: a stream answers one prompt, got ",
           completion.requests.size());
  SY_CHECK(!completion.stream || !completion.logprobs,
           "logprobs: they come with a whole answer; leave out stream or logprobs");
  if (completion.generates) return;
  SY_CHECK(completion.echo && !completion.stream,
           "max_tokens: 0 repeats and scores the decoder_prompt; it needs echo, "
           "and no stream");
  for (const auto& request : completion.requests)
    SY_CHECK(!request.prefix.empty(),
             "decoder_prompt: missing or empty; with max_tokens 0 there is nothing else to "
             "answer");
}

// Of one sequence to score, what the encoder reads and what the decoder would have written (completion.h).
std::vector<int32_t> split_sequence(Request& request, int32_t eos, const RequestLimits& limits) {
  auto sequence = std::exchange(request.ids, {eos});
  const bool is_text = !request.prompt.empty();
  if (is_text) sequence.pop_back();  // the EOS that encoder inputs get
  std::vector<int32_t> echoed;
  if (!is_text && sequence.size() > 1) {
    const auto last = std::find(sequence.rbegin() + 1, sequence.rend(), eos);
    if (last != sequence.rend()) {
      echoed.assign(sequence.begin(), last.base());
      request.ids = echoed;
    }
  }
  request.prefix.assign(sequence.begin() + static_cast<std::ptrdiff_t>(echoed.size()), sequence.end());
  SY_CHECK(static_cast<int64_t>(request.prefix.size()) <= limits.max_tokens, "prompt: ", request.prefix.size(),
           " tokens for the decoder; at most ", limits.max_tokens, " are taken");
  return echoed;
}

std::string shown_text(const Completion& completion, const Request& request, const Hypothesis& output,
                       const Vocabulary& vocabulary, const std::vector<int32_t>& echoed) {
  const auto text = output_text(request, output, &vocabulary);
  if (!completion.echo) return text.substr(std::min(text.size(), echoed_bytes(request, vocabulary)));
  const auto before = vocabulary.decode(echoed);
  return before + (before.empty() || text.empty() ? "" : " ") + text;
}

constexpr std::string_view kMark = "\xE2\x96\x81";  // of a word's beginning, in a piece

// Pieces with the space that their mark stands for.
std::string token_text(int32_t id, const Vocabulary& vocabulary) {
  auto piece = vocabulary.piece(id);
  for (size_t at = piece.find(kMark); at != piece.npos; at = piece.find(kMark, at + 1))
    piece.replace(at, kMark.size(), " ");
  return piece;
}

// Characters of UTF-8.
int64_t num_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char byte) { return (static_cast<unsigned char>(byte) >> 6) != 2; });
}

// Characters of the text before each token. Word by word: a long text is not decoded anew for each of its tokens.
std::vector<int64_t> text_offsets(const std::vector<int32_t>& ids, const Vocabulary& vocabulary) {
  std::vector<int64_t> offsets;
  int64_t before_word = 0;
  size_t word = 0;
  for (size_t n = 0; n < ids.size(); ++n) {
    // Alone, a word has no space in front.
    const int64_t inside = num_characters(vocabulary.decode(std::span(ids).subspan(word, n - word)));
    const int64_t offset = before_word + inside + (word > 0 && n > word ? 1 : 0);
    offsets.push_back(offset);
    if (n > word && vocabulary.piece(ids[n]).starts_with(kMark)) {
      before_word = offset;
      word = n;
    }
  }
  return offsets;
}

Json logprobs_json(const Completion& completion, const Request& request, const Hypothesis& output,
                   const std::vector<TokenScore>& scores, const Vocabulary& vocabulary,
                   const std::vector<int32_t>& echoed) {
  const size_t begin = completion.echo ? 0 : std::min(output.ids.size(), request.prefix.size());
  auto ids = echoed;
  ids.insert(ids.end(), output.ids.begin() + static_cast<std::ptrdiff_t>(begin), output.ids.end());
  Json tokens = Json::array(), chosen = Json::array(), likeliest = Json::array();
  for (size_t n = 0; n < ids.size(); ++n) {
    tokens.push_back(token_text(ids[n], vocabulary));
    if (n < echoed.size()) {
      chosen.push_back(nullptr);
      likeliest.push_back(nullptr);
      continue;
    }
    const auto& score = scores[begin + n - echoed.size()];
    chosen.push_back(score.log_probability);
    Json others = Json::object();
    for (const auto& [id, value] : score.likeliest) others.emplace(token_text(id, vocabulary), value);  // the likelier
    likeliest.push_back(others);
  }
  return {{"tokens", tokens},
          {"token_logprobs", chosen},
          {"top_logprobs", likeliest},
          {"text_offset", text_offsets(ids, vocabulary)}};
}

}  // namespace

Completion read_completion(const std::string& body, const Vocabulary& vocabulary, const RequestLimits& limits) {
  const Json json = parse_json(body, "the request's body");
  SY_CHECK(json.is_object(), "the request's body: expected an object, got ", json.type_name());
  Completion completion;
  Json asked = Json::object();
  for (const auto& [key, value] : json.items()) {
    if (value.is_null() || key == "model" || key == "user" || key == "prompt") continue;
    if (key == "stream")
      completion.stream = read_flag(value, key);
    else if (key == "echo")
      completion.echo = read_flag(value, key);
    else if (key == "logprobs")
      completion.logprobs = read_logprobs(value);
    else if (key == "max_tokens" && value.is_number_integer() && value == 0)
      completion.generates = false;
    else
      asked[key] = value;
  }
  if (!completion.generates) asked["max_tokens"] = 1;
  SY_CHECK(json.contains("prompt"), "prompt is missing: a text, a list of texts or a list of ids");
  Request defaults;
  defaults.search.max_tokens = std::min(defaults.search.max_tokens, limits.max_tokens);
  for (const auto& each : read_prompts(json.at("prompt"))) {
    asked["prompt"] = each;
    auto& request = completion.requests.emplace_back(read_request(asked, &vocabulary, limits, defaults));
    completion.echoed.emplace_back();
    if (completion.echo && completion.logprobs && !asked.contains("decoder_prompt"))
      completion.echoed.back() = split_sequence(request, vocabulary.eos_id(), limits);
  }
  check_together(completion);
  return completion;
}

Hypotheses decoder_prompt_alone(const Request& request) { return {{.ids = request.prefix, .score = 0.0}}; }

size_t echoed_bytes(const Request& request, const Vocabulary& vocabulary) {
  constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // a piece of a character that later tokens complete
  const auto text = vocabulary.decode(request.prefix);
  std::string_view whole = text;
  while (whole.ends_with(kReplacement)) whole.remove_suffix(kReplacement.size());
  return whole.size();
}

std::vector<int32_t> generated_ids(const Request& request, const Hypothesis& output) {
  const auto skipped = static_cast<std::ptrdiff_t>(std::min(output.ids.size(), request.prefix.size()));
  return {output.ids.begin() + skipped, output.ids.end()};
}

const char* finish_reason(const Request& request, const Hypothesis& output, const Vocabulary& vocabulary) {
  const bool ended = !output.ids.empty() && output.ids.back() == request.search.eos_id;
  if (ended || static_cast<int64_t>(generated_ids(request, output).size()) < request.search.max_tokens) return "stop";
  const bool is_cut =
      !request.stop.empty() && output_text(request, output, &vocabulary).size() < vocabulary.decode(output.ids).size();
  return is_cut ? "stop" : "length";
}

Json completion_json(const CompletionName& name, const Completion& completion, const std::vector<Answered>& answers,
                     const Vocabulary& vocabulary) {
  Json choices = Json::array();
  int64_t prompt_tokens = 0, completion_tokens = 0;
  for (size_t prompt = 0; prompt < answers.size(); ++prompt) {
    const auto& [request, outputs, scores] = answers[prompt];
    const auto& echoed = completion.echoed[prompt];
    prompt_tokens += static_cast<int64_t>(request.ids.size());
    for (size_t n = 0; n < outputs.size(); ++n) {
      const auto& output = outputs[n];
      const auto ids = generated_ids(request, output);
      completion_tokens += static_cast<int64_t>(ids.size());
      choices.push_back(
          {{"index", choices.size()},
           {"text", shown_text(completion, request, output, vocabulary, echoed)},
           {"finish_reason", completion.generates ? finish_reason(request, output, vocabulary) : "length"},
           {"logprobs", n < scores.size() ? logprobs_json(completion, request, output, scores[n], vocabulary, echoed)
                                          : Json(nullptr)},
           {"tokens", ids}});
    }
  }
  return {{"id", name.id},
          {"object", "text_completion"},
          {"created", name.created},
          {"model", name.model},
          {"choices", choices},
          {"usage",
           {{"prompt_tokens", prompt_tokens},
            {"completion_tokens", completion_tokens},
            {"total_tokens", prompt_tokens + completion_tokens}}}};
}

Json chunk_json(const CompletionName& name, const Piece& piece) {
  Json choice = {{"index", piece.index},
                 {"text", piece.text},
                 {"finish_reason", piece.reason ? Json(*piece.reason) : Json(nullptr)}};
  if (piece.reason) choice["tokens"] = piece.tokens;
  return {{"id", name.id},
          {"object", "text_completion"},
          {"created", name.created},
          {"model", name.model},
          {"choices", Json::array({choice})}};
}

Json error_json(int status, const std::string& message) {
  const char* type = status == 401   ? "authentication_error"
                     : status == 404 ? "not_found_error"
                     : status == 429 ? "rate_limit_error"
                     : status >= 500 ? "server_error"
                                     : "invalid_request_error";
  return {{"error", {{"message", message}, {"type", type}, {"code", status}}}};
}

}  // namespace switchyard
