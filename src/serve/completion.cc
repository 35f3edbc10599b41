#include "serve/completion.h"

#include "base/error.h"
#include "base/json.h"

namespace switchyard {
namespace {

constexpr size_t kMostPrompts = 64;

int64_t generated(const Request& request, const Hypothesis& output) {
  return static_cast<int64_t>(output.ids.size() - std::min(output.ids.size(), request.prefix.size()));
}

}  // namespace

Completion read_completion(const std::string& body, const Vocabulary& vocabulary, const RequestLimits& limits) {
  Json json = parse_json(body, "the request's body");
  SY_CHECK(json.is_object(), "the request's body: expected an object, got ", json.type_name());
  Completion completion;
  Json asked = Json::object();
  for (const auto& [key, value] : json.items()) {
    if (key == "stream") {
      SY_CHECK(value.is_boolean() || value.is_null(), "stream: expected true or false, got ", value.type_name());
      completion.stream = value.is_boolean() && value.get<bool>();
    } else if (key != "model" && key != "user" && key != "prompt" && !value.is_null()) {
      asked[key] = value;
    }
  }
  SY_CHECK(json.contains("prompt"), "prompt is missing: a text, a list of texts or a list of ids");
  const auto& prompt = json.at("prompt");
  std::vector<Json> prompts = {prompt};
  if (prompt.is_array() && !prompt.empty() && (prompt.front().is_string() || prompt.front().is_array()))
    prompts.assign(prompt.begin(), prompt.end());
  SY_CHECK(prompts.size() <= kMostPrompts, "prompt: ", prompts.size(), " texts; at most ", kMostPrompts, " are taken");
  SY_CHECK(!completion.stream || prompts.size() == 1, "stream: a stream answers one prompt, got ", prompts.size());
  for (const auto& each : prompts) {
    asked["prompt"] = each;
    completion.requests.push_back(read_request(asked, &vocabulary, limits));
  }
  return completion;
}

const char* finish_reason(const Request& request, const Hypothesis& output) {
  const bool ended = !output.ids.empty() && output.ids.back() == request.search.eos_id;
  return ended || generated(request, output) < request.search.max_tokens ? "stop" : "length";
}

Json completion_json(const std::string& id, int64_t created, const std::string& model,
                     const std::vector<Answered>& answers, const Vocabulary& vocabulary) {
  Json choices = Json::array();
  int64_t prompt_tokens = 0, completion_tokens = 0;
  for (const auto& [request, outputs] : answers) {
    prompt_tokens += static_cast<int64_t>(request.ids.size());
    for (const auto& output : outputs) {
      completion_tokens += generated(request, output);
      choices.push_back({{"index", choices.size()},
                         {"text", output_text(request, output, &vocabulary)},
                         {"finish_reason", finish_reason(request, output)},
                         {"logprobs", nullptr}});
    }
  }
  return {{"id", id},
          {"object", "text_completion"},
          {"created", created},
          {"model", model},
          {"choices", choices},
          {"usage",
           {{"prompt_tokens", prompt_tokens},
            {"completion_tokens", completion_tokens},
            {"total_tokens", prompt_tokens + completion_tokens}}}};
}

Json chunk_json(const std::string& id, int64_t created, const std::string& model, size_t index, const std::string& text,
                std::optional<std::string> reason) {
  return {
      {"id", id},
      {"object", "text_completion"},
      {"created", created},
      {"model", model},
      {"choices",
       Json::array({{{"index", index}, {"text", text}, {"finish_reason", reason ? Json(*reason) : Json(nullptr)}}})}};
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
