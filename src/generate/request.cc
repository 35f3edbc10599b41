#include "generate/request.h"

#include <functional>
#include <utility>

#include "base/error.h"
#include "generate/blanks.h"
#include "generate/stop_strings.h"

namespace switchyard {
namespace {

constexpr size_t kMostStrings = 64;  // stop strings and bad words
constexpr size_t kLongestString = 1024;

// What reading a value may need.
struct Reading {
  const Vocabulary* vocabulary;
  const RequestLimits& limits;
};

template <class T>
T read(const Json& value, const std::string& key) {
  T result{};
  config_detail::read_value(value, key, result);
  return result;
}

std::vector<std::string> read_strings(const Json& value, const std::string& key) {
  auto strings = value.is_string() ? std::vector<std::string>{value.get<std::string>()}
                                   : read<std::vector<std::string>>(value, key);
  SY_CHECK(strings.size() <= kMostStrings, key, ": ", strings.size(), " texts; at most ", kMostStrings, " are taken");
  for (const auto& string : strings)
    SY_CHECK(!string.empty() && string.size() <= kLongestString, key, ": a text of ", string.size(),
             " bytes; expected 1 to ", kLongestString);
  return strings;
}

EarlyStopping read_early_stopping(const Json& value, const std::string& key) {
  if (value.is_boolean()) return value.get<bool>() ? EarlyStopping::kAlways : EarlyStopping::kHeuristic;
  SY_CHECK(value.is_string() && value.get<std::string>() == "never", key, ": expected true, false or \"never\", got ",
           value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 60));
  return EarlyStopping::kNever;
}

int64_t read_bounded(const Json& value, const std::string& key, int64_t least, int64_t most) {
  const auto number = read<int64_t>(value, key);
  SY_CHECK(number >= least && number <= most, key, ": ", number, "; expected ", least, " to ", most);
  return number;
}

using Reader = std::function<void(Request&, const Json&, const std::string& key, const Reading&)>;

// A reader of a plain number into a place of the request.
template <class T>
Reader number(T& (*place)(Request&)) {
  return [place](Request& request, const Json& value, const std::string& key, const Reading&) {
    place(request) = read<T>(value, key);
  };
}

// The one list of a request's keys.
const std::vector<std::pair<std::string, Reader>>& readers() {
  static const std::vector<std::pair<std::string, Reader>> list = {
      {"prompt",
       [](Request& request, const Json& value, const std::string& key, const Reading& reading) {
         request.ids = read_tokens(value, key, reading.vocabulary, reading.limits, /*with_eos=*/true);
         request.prompt = value.is_string() ? value.get<std::string>() : "";
       }},
      {"decoder_prompt",
       [](Request& request, const Json& value, const std::string& key, const Reading& reading) {
         request.prefix = read_tokens(value, key, reading.vocabulary, reading.limits, /*with_eos=*/false);
       }},
      {"max_tokens",
       [](Request& request, const Json& value, const std::string& key, const Reading& reading) {
         request.search.max_tokens = read_bounded(value, key, 1, reading.limits.max_tokens);
       }},
      {"min_tokens", number<int64_t>([](Request& r) -> int64_t& { return r.search.rules.min_tokens; })},
      {"n",
       [](Request& request, const Json& value, const std::string& key, const Reading& reading) {
         request.search.num_results = read_bounded(value, key, 1, reading.limits.rows);
       }},
      {"seed", [](Request& request, const Json& value, const std::string& key,
                  const Reading&) { request.search.sampling.seed = static_cast<uint64_t>(read<int64_t>(value, key)); }},
      {"temperature", number<double>([](Request& r) -> double& { return r.search.sampling.temperature; })},
      {"top_k", number<int64_t>([](Request& r) -> int64_t& { return r.search.sampling.top_k; })},
      {"top_p", number<double>([](Request& r) -> double& { return r.search.sampling.top_p; })},
      {"typical_p", number<double>([](Request& r) -> double& { return r.search.sampling.typical_p; })},
      {"beams",
       [](Request& request, const Json& value, const std::string& key, const Reading& reading) {
         request.search.beams.num_beams = read_bounded(value, key, 1, reading.limits.rows);
       }},
      {"length_penalty", number<double>([](Request& r) -> double& { return r.search.beams.length_penalty; })},
      {"early_stopping", [](Request& request, const Json& value, const std::string& key,
                            const Reading&) { request.search.beams.early_stopping = read_early_stopping(value, key); }},
      {"repetition_penalty", number<double>([](Request& r) -> double& { return r.search.rules.repetition_penalty; })},
      {"no_repeat_ngram_size",
       number<int64_t>([](Request& r) -> int64_t& { return r.search.rules.no_repeat_ngram_size; })},
      {"bad_words",
       [](Request& request, const Json& value, const std::string& key, const Reading& reading) {
         SY_CHECK(reading.vocabulary != nullptr, key, ": texts need the model's vocabulary");
         request.search.rules.bad_words.clear();
         for (const auto& word : read_strings(value, key))
           request.search.rules.bad_words.push_back(reading.vocabulary->encode(word));
       }},
      {"stop", [](Request& request, const Json& value, const std::string& key,
                  const Reading&) { request.stop = read_strings(value, key); }},
  };
  return list;
}

Json output_json(const Request& request, const Hypothesis& output, const Vocabulary* vocabulary) {
  Json json = {{"text", output_text(request, output, vocabulary)}, {"ids", output.ids}, {"score", output.score}};
  if (vocabulary != nullptr && has_blanks(request.prompt, *vocabulary))
    json["filled"] = fill_blanks(request.prompt, output.ids, *vocabulary);
  return json;
}

}  // namespace

std::vector<int32_t> read_tokens(const Json& value, const std::string& key, const Vocabulary* vocabulary,
                                 const RequestLimits& limits, bool with_eos) {
  std::vector<int32_t> ids;
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    SY_CHECK(text.size() <= limits.prompt_bytes, key, ": ", text.size(), " bytes; at most ", limits.prompt_bytes,
             " are taken");
    SY_CHECK(vocabulary != nullptr, key, ": a text needs the model's vocabulary; give a list of ids");
    ids = vocabulary->encode(text);
    if (with_eos) ids.push_back(vocabulary->eos_id());
  } else {
    SY_CHECK(value.is_array(), key, ": expected a text or a list of ids, got ", value.type_name());
    SY_CHECK(value.size() <= limits.prompt_tokens, key, ": ", value.size(), " ids; at most ", limits.prompt_tokens,
             " are taken");
    for (const auto& item : value) {
      const auto id = read<int64_t>(item, key);
      SY_CHECK(id >= 0 && id <= INT32_MAX, key, ": ", id, " is no token id");
      ids.push_back(static_cast<int32_t>(id));
    }
  }
  SY_CHECK(ids.size() <= limits.prompt_tokens, key, ": ", ids.size(), " tokens; at most ", limits.prompt_tokens,
           " are taken");
  return ids;
}

std::vector<std::string> request_keys() {
  std::vector<std::string> keys;
  for (const auto& [key, reader] : readers()) keys.push_back(key);
  return keys;
}

Request read_request(const Json& json, const Vocabulary* vocabulary, const RequestLimits& limits,
                     const Request& defaults) {
  SY_CHECK(json.is_object(), "request: expected an object, got ", json.type_name());
  const auto keys = request_keys();
  for (const auto& [key, value] : json.items())
    SY_CHECK(std::find(keys.begin(), keys.end(), key) != keys.end(), "request: unknown key \"", key.substr(0, 60), "\"",
             nearest_hint(key.substr(0, 60), keys));
  Request request = defaults;
  for (const auto& [key, reader] : readers())
    if (json.contains(key)) reader(request, json.at(key), key, {vocabulary, limits});
  const auto& sampling = request.search.sampling;
  if (!json.contains("temperature") && sampling.temperature == 0 &&
      (sampling.top_k > 0 || sampling.top_p < 1 || sampling.typical_p < 1))
    request.search.sampling.temperature = 1.0;  // who filters wants to draw
  validate(request.search);
  SY_CHECK(!request.ids.empty(), "prompt: missing or empty; expected a text or a list of ids");
  return request;
}

std::string output_text(const Request& request, const Hypothesis& output, const Vocabulary* vocabulary) {
  if (vocabulary != nullptr) {
    const auto text = vocabulary->decode(output.ids);
    return request.stop.empty() ? text : std::string(StopStrings(request.stop, *vocabulary).cut(text));
  }
  std::string text;
  for (const int32_t id : output.ids) text += (text.empty() ? "" : " ") + std::to_string(id);
  return text;
}

Json result_json(const Request& request, const Hypotheses& outputs, const Vocabulary* vocabulary) {
  SY_CHECK(!outputs.empty(), "result: there is no output");
  Json json = {{"prompt", request.prompt}};
  json.update(output_json(request, outputs[0], vocabulary));
  for (size_t rank = 1; rank < outputs.size(); ++rank)
    json["others"].push_back(output_json(request, outputs[rank], vocabulary));
  return json;
}

}  // namespace switchyard
