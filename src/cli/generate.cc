// switchyard generate: outputs for prompts, and with --score the log-probability of given outputs.
#include "generate/generate.h"

#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <memory>
#include <optional>

#include "base/config.h"
#include "base/error.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/model_directory.h"
#include "cli/commands.h"
#include "cli/compute_options.h"
#include "generate/blanks.h"
#include "generate/stop_strings.h"

namespace switchyard {
namespace {

struct GenerateCommand {
  std::string model;
  std::vector<std::string> prompts, stops, bad_words;
  std::string prefix, early_stopping = "false";
  bool ids = false, json = false, score = false;
  std::optional<double> temperature;
  int64_t batch_size = 8;
  int64_t seed = 0;
  SearchOptions search;
  ComputeOptions compute;
};

// "5 17 1" as ids.
std::vector<int32_t> parse_ids(std::string_view text, const std::string& place) {
  std::vector<int32_t> ids;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    if (*at == ' ' || *at == '\t' || *at == '\r') {
      ++at;
      continue;
    }
    int32_t id = 0;
    const auto [rest, error] = std::from_chars(at, end, id);
    SY_CHECK(error == std::errc() && (rest == end || *rest == ' ' || *rest == '\t' || *rest == '\r'), place,
             ": expected ids separated by spaces, got \"", text.substr(0, 60), "\"");
    ids.push_back(id);
    at = rest;
  }
  return ids;
}

std::string print_ids(std::span<const int32_t> ids) {
  std::string text;
  for (const int32_t id : ids) text += (text.empty() ? "" : " ") + std::to_string(id);
  return text;
}

// Text to ids and back: through the model's vocabulary, or with --ids as numbers.
class Codec {
 public:
  explicit Codec(const GenerateCommand& command) {
    if (!command.ids) vocabulary_ = Vocabulary::load(command.model);
  }

  const std::optional<Vocabulary>& vocabulary() const { return vocabulary_; }
  std::vector<int32_t> encode(std::string_view text, const std::string& place) const {
    return vocabulary_ ? vocabulary_->encode(text) : parse_ids(text, place);
  }
  // With T5's EOS at the end; ids are taken as they are given.
  std::vector<int32_t> encode_with_eos(std::string_view text, const std::string& place) const {
    auto ids = encode(text, place);
    if (vocabulary_) ids.push_back(vocabulary_->eos_id());
    return ids;
  }
  std::string decode(std::span<const int32_t> ids) const {
    return vocabulary_ ? vocabulary_->decode(ids) : print_ids(ids);
  }
  bool has_blanks(std::string_view prompt) const { return vocabulary_ && switchyard::has_blanks(prompt, *vocabulary_); }

 private:
  std::optional<Vocabulary> vocabulary_;
};

InferenceModel load(const GenerateCommand& command) {
  return open_for_inference(command.model, dtype_of(command.compute.dtype.empty() ? "fp32" : command.compute.dtype));
}

// The given prompts, or the lines of standard input, `batch_size` at a time. A person at a terminal gets answers line
// by line.
class PromptSource {
 public:
  explicit PromptSource(const GenerateCommand& command)
      : prompts_(command.prompts),
        interactive_(prompts_.empty() && isatty(STDIN_FILENO) != 0),
        batch_size_(interactive_ ? 1 : command.batch_size) {
    if (interactive_) std::cerr << "One prompt a line; Ctrl-D ends.\n";
  }

  // Empty at the end.
  std::vector<std::string> next_batch() {
    std::vector<std::string> batch;
    std::string line;
    while (static_cast<int64_t>(batch.size()) < batch_size_ && next(line))
      if (!interactive_ || !line.empty()) batch.push_back(line);
    return batch;
  }

 private:
  bool next(std::string& line) {
    if (!prompts_.empty()) {
      if (next_ == prompts_.size()) return false;
      line = prompts_[next_++];
      return true;
    }
    if (interactive_) std::cerr << "> " << std::flush;
    if (!std::getline(std::cin, line)) return false;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    return true;
  }

  std::vector<std::string> prompts_;
  size_t next_ = 0;
  bool interactive_;
  int64_t batch_size_;
};

void print_json(const Json& json) {
  std::cout << json.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
}

// Prints what is new of a growing output.
class Streamer {
 public:
  explicit Streamer(const Codec& codec) : codec_(codec) {}
  void add(int32_t id) {
    ids_.push_back(id);
    const auto text = codec_.decode(ids_);
    if (text.size() > printed_) std::cout << text.substr(printed_) << std::flush;
    printed_ = std::max(printed_, text.size());
  }

 private:
  const Codec& codec_;
  std::vector<int32_t> ids_;
  size_t printed_ = 0;
};

void print_result(const GenerateCommand& command, const Codec& codec, const StopStrings* stops,
                  const std::string& prompt, const Hypotheses& results) {
  const auto text_of = [&](const Hypothesis& result) {
    const auto text = codec.decode(result.ids);
    return stops != nullptr ? std::string(stops->cut(text)) : text;
  };
  const auto filled_of = [&](const Hypothesis& result) { return fill_blanks(prompt, result.ids, *codec.vocabulary()); };
  const bool blanks = codec.has_blanks(prompt);
  const auto fields_of = [&](const Hypothesis& result) {
    Json json = {{"text", text_of(result)}, {"ids", result.ids}, {"score", result.score}};
    if (blanks) json["filled"] = filled_of(result);
    return json;
  };
  if (command.json) {
    Json json = {{"prompt", prompt}};
    json.update(fields_of(results.at(0)));
    for (size_t rank = 1; rank < results.size(); ++rank) json["others"].push_back(fields_of(results[rank]));
    print_json(json);
    return;
  }
  for (const auto& result : results) {
    if (results.size() > 1) std::cout << result.score << '\t';
    std::cout << (blanks ? filled_of(result) : text_of(result)) << std::endl;
  }
}

void run_generate(GenerateCommand command) {
  auto& search = command.search;
  if (command.temperature)
    search.sampling.temperature = *command.temperature;
  else if (search.sampling.top_k > 0 || search.sampling.top_p < 1 || search.sampling.typical_p < 1)
    search.sampling.temperature = 1.0;
  search.sampling.seed = static_cast<uint64_t>(command.seed);
  search.beams.early_stopping = command.early_stopping == "true"    ? EarlyStopping::kAlways
                                : command.early_stopping == "never" ? EarlyStopping::kNever
                                                                    : EarlyStopping::kHeuristic;
  validate(search);
  const Codec codec(command);
  for (const auto& word : command.bad_words) search.rules.bad_words.push_back(codec.encode(word, "--bad-word"));
  std::optional<StopStrings> stops;
  if (!command.stops.empty()) {
    SY_CHECK(codec.vocabulary(), "--stop is about text, and --ids has none");
    stops.emplace(command.stops, *codec.vocabulary());
    search.stops = [&stops](std::span<const int32_t> ids) { return stops->contained_in(ids); };
  }
  const auto prefix = codec.encode(command.prefix, "--prefix");
  const bool may_stream = !command.json && isatty(STDOUT_FILENO) != 0 && search.beams.num_beams == 1 && !stops;
  const auto [config, weights] = load(command);

  PromptSource source(command);
  for (auto batch = source.next_batch(); !batch.empty(); batch = source.next_batch()) {
    std::vector<Prompt> prompts;
    for (const auto& prompt : batch)
      prompts.push_back(
          {codec.encode_with_eos(prompt, "prompt " + std::to_string(search.first_prompt + prompts.size() + 1)),
           prefix});
    const bool stream = may_stream && batch.size() == 1 && !codec.has_blanks(batch[0]);
    Streamer streamer(codec);
    if (stream) {
      for (const int32_t id : prefix) streamer.add(id);
      search.on_token = [&streamer](size_t, int32_t id) { streamer.add(id); };
    } else {
      search.on_token = nullptr;
    }
    const auto results = generate(config, weights, prompts, {.search = search, .batch_size = command.batch_size});
    search.first_prompt += batch.size();
    if (stream)
      std::cout << std::endl;
    else
      for (size_t n = 0; n < batch.size(); ++n)
        print_result(command, codec, stops ? &*stops : nullptr, batch[n], results[n]);
  }
}

void run_score(const GenerateCommand& command) {
  const Codec codec(command);
  const auto [config, weights] = load(command);
  PromptSource source(command);
  size_t number = 0;
  for (auto batch = source.next_batch(); !batch.empty(); batch = source.next_batch()) {
    std::vector<std::vector<int32_t>> inputs, targets;
    std::vector<std::pair<std::string, std::string>> texts;
    for (const auto& line : batch) {
      const auto place = "line " + std::to_string(++number);
      const size_t tab = line.find('\t');
      SY_CHECK(tab != line.npos, place, ": --score expects an input, a tab and a target, got \"", line.substr(0, 60),
               "\"");
      texts.emplace_back(line.substr(0, tab), line.substr(tab + 1));
      inputs.push_back(codec.encode_with_eos(texts.back().first, place));
      targets.push_back(codec.encode_with_eos(texts.back().second, place));
    }
    const auto scored = score_targets(config, weights, inputs, targets, command.batch_size);
    for (size_t n = 0; n < batch.size(); ++n) {
      if (command.json)
        print_json({{"prompt", texts[n].first},
                    {"target", texts[n].second},
                    {"ids", targets[n]},
                    {"score", scored[n].score},
                    {"token_scores", scored[n].token_log_probabilities}});
      else
        std::cout << std::setprecision(8) << scored[n].score << std::endl;
    }
  }
}

void add_search_options(CLI::App& app, GenerateCommand& command) {
  auto& search = command.search;
  app.add_option("--max-tokens", search.max_tokens, "most tokens generated a prompt, EOS included")
      ->capture_default_str();
  app.add_option("--min-tokens", search.rules.min_tokens, "EOS may not come before that many tokens")
      ->capture_default_str();
  app.add_option("--beams", search.beams.num_beams, "beam search with that many beams; 1: greedy or sampling")
      ->capture_default_str();
  app.add_option("--results", search.beams.num_results, "beam search: outputs a prompt, best first")
      ->capture_default_str();
  app.add_option("--length-penalty", search.beams.length_penalty,
                 "beam search: score = log-probability / length^penalty")
      ->capture_default_str();
  app.add_option(
         "--early-stopping", command.early_stopping,
         "beam search ends: true, at as many outputs as beams; false, when none at its present length can do better; "
         "never, when none could do better at full length")
      ->check(CLI::IsMember({"true", "false", "never"}))
      ->capture_default_str();
  app.add_option(
      "--temperature", command.temperature,
      "sample, with logits divided by it; 0: greedy (the default; 1 where --top-k, --top-p or --typical-p is given)");
  app.add_option("--top-k", search.sampling.top_k, "sample from the K most likely tokens; 0: off")
      ->capture_default_str();
  app.add_option("--top-p", search.sampling.top_p, "sample from the fewest tokens with probability P together; 1: off")
      ->capture_default_str();
  app.add_option("--typical-p", search.sampling.typical_p, "sample from typical tokens of mass P; 1: off")
      ->capture_default_str();
  app.add_option("--seed", command.seed, "of sampling; a prompt's sample depends on it and the prompt's number only")
      ->capture_default_str();
  app.add_option("--repetition-penalty", search.rules.repetition_penalty, "weakens tokens that occurred; 1: off")
      ->capture_default_str();
  app.add_option("--no-repeat-ngram", search.rules.no_repeat_ngram_size, "no N tokens in a row twice; 0: off")
      ->capture_default_str();
  app.add_option("--bad-word", command.bad_words,
                 "text that never occurs (its tokens at a word's start); may be repeated")
      ->allow_extra_args(false);
  app.add_option("--stop", command.stops, "text at which an output ends, cut off there; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--prefix", command.prefix, "text (with --ids: ids) that every output begins with");
}

}  // namespace

void add_generate(CLI::App& app) {
  auto command = std::make_shared<GenerateCommand>();
  auto* generate = app.add_subcommand(
      "generate",
      "Generate outputs for prompts. Blanks <extra_id_0>, <extra_id_1>, ... in a prompt are filled in.\n"
      "Tokens are never dropped in decoding: experts have no capacity limit, and a prompt's output does not depend on "
      "the\n"
      "prompts beside it. (In the encoder an absolute capacity per sequence, as in Hugging Face's models, is kept.)");
  generate->add_option("--model", command->model, "model directory, or a run's folder for its newest checkpoint")
      ->required();
  generate->add_option("--prompt", command->prompts, "prompt, may be repeated; default: the lines of standard input");
  generate->add_flag("--ids", command->ids,
                     "prompts and outputs are token ids separated by spaces, taken as given: no EOS is added");
  generate->add_flag(
      "--json", command->json,
      "one object a prompt: prompt, text, ids, score (sum of the tokens' log-probabilities; beam search: its "
      "sequence score), filled where there are blanks, others with --results");
  generate->add_flag("--score", command->score,
                     "log-probability of given outputs instead: each line is an input, a tab and a target");
  generate->add_option("--batch-size", command->batch_size, "prompts decoded together")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_search_options(*generate, *command);
  add_compute_options(*generate, command->compute);
  generate->footer(
      "Example: switchyard generate --model runs/mini --prompt \"A <extra_id_0> walks into a bar.\" --beams 4");
  generate->callback([command] {
    command->model = resolve_model_folder(command->model).string();
    apply(command->compute);
    if (command->score)
      run_score(*command);
    else
      run_generate(*command);
  });
}

}  // namespace switchyard
