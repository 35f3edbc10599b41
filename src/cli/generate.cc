// switchyard generate: outputs for prompts, and with --score the log-probability of given outputs.
#include <unistd.h>

#include <deque>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>
#include <utility>

#include "base/config.h"
#include "base/error.h"
#include "base/messages.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/model_directory.h"
#include "cli/codec.h"
#include "cli/commands.h"
#include "cli/compute_options.h"
#include "cli/expert_memory.h"
#include "cli/line_reader.h"
#include "cli/shared_model.h"
#include "generate/blanks.h"
#include "generate/score.h"
#include "generate/session.h"
#include "generate/text_stream.h"

namespace switchyard {
namespace {

struct GenerateCommand {
  std::string model;
  std::vector<std::string> prompts, stops, bad_words;
  std::string prefix, early_stopping = "false";
  bool ids = false, json = false, score = false;
  std::optional<double> temperature;
  int64_t slots = 8;
  int64_t seed = 0;
  SearchOptions search;
  ComputeOptions compute;
};

SharedModel load(const GenerateCommand& command) {
  auto shared =
      open_shared_model(command.model, dtype_of(command.compute.dtype.empty() ? "fp32" : command.compute.dtype),
                        device_of(command.compute), command.compute.expert_memory);
  SY_CHECK(shared.mesh->world() == nullptr || !command.prompts.empty(),
           "standard input reaches one rank alone: with several, give prompts by --prompt");
  return shared;
}

// The given prompts, or the lines of standard input. A person at a terminal gets answers line by line.
class PromptSource {
 public:
  explicit PromptSource(const GenerateCommand& command)
      : prompts_(command.prompts), interactive_(prompts_.empty() && isatty(STDIN_FILENO) != 0) {
    if (interactive_) std::cerr << "One prompt a line; Ctrl-D ends.\n";
  }

  bool is_interactive() const { return interactive_; }
  bool is_at_end() const { return prompts_.empty() ? lines_.is_at_end() : next_ == prompts_.size(); }

  // Nothing at the end and, unless `wait`, where none has come yet.
  std::optional<std::string> next(bool wait) {
    if (!prompts_.empty()) return next_ < prompts_.size() ? std::optional(prompts_[next_++]) : std::nullopt;
    std::optional<std::string> line;
    do {
      if (interactive_ && wait) std::cerr << "> " << std::flush;
      line = lines_.next(wait);
    } while (interactive_ && line && line->empty());
    return line;
  }

 private:
  std::vector<std::string> prompts_;
  size_t next_ = 0;
  LineReader lines_{STDIN_FILENO};
  bool interactive_;
};

std::string print_json(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

std::string print_result(const GenerateCommand& command, const Codec& codec, const InferenceModel& model,
                         const Request& request, const Hypotheses& results) {
  if (command.json) {
    auto json = result_json(request, results, codec.vocabulary());
    if (const auto limit = command.compute.expert_memory)
      json["expert_memory"] = expert_memory_json(model.experts->reads(), *limit);
    return print_json(json);
  }
  std::ostringstream text;
  for (const auto& result : results) {
    if (results.size() > 1) text << result.score << '\t';
    text << (codec.has_blanks(request.prompt) ? fill_blanks(request.prompt, result.ids, *codec.vocabulary())
                                              : output_text(request, result, codec.vocabulary()))
         << '\n';
  }
  return text.str();
}

// What every request of this command has in common.
Request request_of(const GenerateCommand& command, const Codec& codec) {
  Request request{.prefix = codec.encode(command.prefix, "--prefix"), .search = command.search, .stop = command.stops};
  auto& search = request.search;
  if (command.temperature)
    search.sampling.temperature = *command.temperature;
  else if (search.sampling.top_k > 0 || search.sampling.top_p < 1 || search.sampling.typical_p < 1)
    search.sampling.temperature = 1.0;
  search.sampling.seed = static_cast<uint64_t>(command.seed);
  search.beams.early_stopping = command.early_stopping == "true"    ? EarlyStopping::kAlways
                                : command.early_stopping == "never" ? EarlyStopping::kNever
                                                                    : EarlyStopping::kHeuristic;
  for (const auto& word : command.bad_words) search.rules.bad_words.push_back(codec.encode(word, "--bad-word"));
  validate(search);
  SY_CHECK(request.stop.empty() || codec.vocabulary() != nullptr, "--stop is about text, and --ids has none");
  return request;
}

// A request's prompts through one session, answered in their order and each as soon as it can be.
class Answers {
 public:
  Answers(const GenerateCommand& command, const Codec& codec, const InferenceModel& model)
      : command_(command),
        codec_(codec),
        model_(model),
        common_(request_of(command, codec)),
        source_(command),
        session_(model.config, model.weights, codec.vocabulary(),
                 {.rows = command.slots * most_rows(common_.search),
                  .max_length = static_cast<int64_t>(common_.prefix.size()) + common_.search.max_tokens}) {}

  void run() {
    while (true) {
      submit_lines();
      if (!session_.step() && source_.is_at_end()) break;
    }
  }

 private:
  struct Answer {
    std::optional<std::string> text = {};  // what to print, once it is known
    std::string error = {};                // of the request, instead
  };

  // Takes what has come, but not more than keeps the session at work; waits for a line if there is nothing to do.
  void submit_lines() {
    const auto slots = static_cast<size_t>(source_.is_interactive() ? 1 : command_.slots);
    while (session_.num_running() + session_.num_waiting() < 2 * slots && answers_.size() < 64 * slots) {
      if (source_.is_interactive() && !session_.is_idle()) return;
      const auto line = source_.next(/*wait=*/session_.is_idle());
      if (!line) return;
      submit(*line);
    }
  }

  void submit(const std::string& line) {
    const uint64_t number = num_prompts_++;
    const auto place = "prompt " + std::to_string(number + 1);
    Request request = common_;
    request.prompt = line;
    request.search.number = number;
    answers_.emplace_back();
    try {
      request.ids = codec_.encode_with_eos(line, place);
      const bool streams = may_stream(line);
      session_.submit(std::move(request),
                      {.on_token = streams ? streaming() : nullptr,
                       .on_result = [this, number, streams](const Request& asked, const Result& result) {
                         finish(number, streams, asked, result);
                       }});
    } catch (const Error& error) {
      // Those before it are answered first.
      while (session_.step()) {
      }
      throw Error(place + ": " + error.what());
    }
  }

  // Tokens are printed as they come where one person waits for one answer.
  bool may_stream(const std::string& line) const {
    return !command_.json && isatty(STDOUT_FILENO) != 0 && most_rows(common_.search) == 1 &&
           (source_.is_interactive() || command_.prompts.size() == 1) && !codec_.has_blanks(line);
  }

  std::function<void(size_t, int32_t)> streaming() {
    stream_.reset();
    first_id_ = true;
    if (codec_.vocabulary() != nullptr) stream_.emplace(*codec_.vocabulary(), common_.stop);
    for (const int32_t id : common_.prefix) print_token(id);
    return [this](size_t, int32_t id) { print_token(id); };
  }

  void print_token(int32_t id) {
    if (stream_)
      std::cout << stream_->add(id) << std::flush;
    else
      std::cout << (std::exchange(first_id_, false) ? "" : " ") << id << std::flush;
  }

  void finish(uint64_t number, bool streamed, const Request& request, const Result& result) {
    auto& answer = answers_.at(static_cast<size_t>(number - first_));
    if (!result.error.empty())
      answer.error = "prompt " + std::to_string(number + 1) + ": " + result.error;
    else if (streamed)
      answer.text = (stream_ ? stream_->finish() : "") + "\n";
    else
      answer.text = print_result(command_, codec_, model_, request, result.outputs);
    for (; !answers_.empty() && (answers_.front().text || !answers_.front().error.empty()); ++first_) {
      SY_CHECK(answers_.front().error.empty(), answers_.front().error);
      std::cout << *answers_.front().text << std::flush;
      answers_.pop_front();
    }
  }

  const GenerateCommand& command_;
  const Codec& codec_;
  const InferenceModel& model_;
  Request common_;
  PromptSource source_;
  Session session_;
  std::optional<TextStream> stream_;
  bool first_id_ = true;        // of a streamed answer in ids
  std::deque<Answer> answers_;  // of the prompts from number first_ on
  uint64_t num_prompts_ = 0, first_ = 0;
};

void run_generate(const GenerateCommand& command) {
  const Codec codec(command.model, command.ids);
  const auto shared = load(command);
  Answers(command, codec, shared.model).run();
  if (const auto limit = command.compute.expert_memory) say(expert_memory_line(shared.model.experts->reads(), *limit));
}

void run_score(const GenerateCommand& command) {
  const Codec codec(command.model, command.ids);
  const auto shared = load(command);
  const auto& config = shared.model.config;
  const auto& weights = shared.model.weights;
  PromptSource source(command);
  for (size_t number = 1; const auto line = source.next(/*wait=*/true); ++number) {
    const auto place = "line " + std::to_string(number);
    const size_t tab = line->find('\t');
    SY_CHECK(tab != line->npos, place, ": --score expects an input, a tab and a target, got \"", line->substr(0, 60),
             "\"");
    const auto input = line->substr(0, tab), target = line->substr(tab + 1);
    const auto target_ids = codec.encode_with_eos(target, place);
    Scored scored;
    try {
      scored = score_targets(config, weights, codec.encode_with_eos(input, place), {target_ids}).at(0);
    } catch (const Error& error) {
      throw Error(place + ": " + error.what());
    }
    if (command.json)
      std::cout << print_json({{"prompt", input},
                               {"target", target},
                               {"ids", target_ids},
                               {"score", scored.score},
                               {"token_scores", scored.token_log_probabilities}})
                << std::flush;
    else
      std::cout << std::setprecision(8) << scored.score << std::endl;
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
  app.add_option("--results", search.num_results, "outputs a prompt: the best of the beams, or so many samples")
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
      "A prompt's output does not depend on the prompts beside it. Tokens are never dropped in decoding: experts have "
      "no\n"
      "capacity limit. (In the encoder an absolute capacity per sequence, as in Hugging Face's models, is kept.)");
  generate->add_option("--model", command->model, "model directory, or a run's folder for its newest checkpoint")
      ->required();
  generate->add_option("--prompt", command->prompts,
                       "prompt, may be repeated; default: the lines of standard input, answered as they come");
  generate->add_flag("--ids", command->ids,
                     "prompts and outputs are token ids separated by spaces, taken as given: no EOS is added");
  generate->add_flag(
      "--json", command->json,
      "one object a prompt: prompt, text, ids, score (sum of the tokens' log-probabilities; beam search: its "
      "sequence score), filled where there are blanks, others with --results, expert_memory (what was read until then) "
      "with --expert-memory");
  generate->add_flag("--score", command->score,
                     "log-probability of given outputs instead: each line is an input, a tab and a target");
  generate
      ->add_option(
          "--slots,--batch-size", command->slots,
          "prompts decoded together, as far as they have come; answers are printed in the prompts' order, each "
          "as soon as it is there")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_search_options(*generate, *command);
  add_compute_options(*generate, command->compute);
  add_expert_memory(*generate, command->compute);
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
