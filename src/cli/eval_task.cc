#include "cli/eval_task.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <optional>

#include "base/error.h"
#include "base/files.h"
#include "tasks/long_texts.h"
#include "tasks/predictions.h"
#include "tasks/score.h"
#include "tasks/split_files.h"
#include "tasks/template.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

struct Scored {
  std::string task, split;
  size_t examples = 0, bad_rows = 0;
  size_t truncated_inputs = 0, skipped_inputs = 0, long_targets = 0;
  MetricValues metrics;
};

Json to_json(const Scored& scored) {
  Json metrics = Json::object();
  for (const auto& [name, value] : scored.metrics) metrics[name] = value;  // NaN prints as null
  Json json = {{"task", scored.task}, {"split", scored.split}, {"examples", scored.examples}, {"metrics", metrics}};
  if (scored.bad_rows > 0) json["bad_rows"] = scored.bad_rows;
  if (scored.truncated_inputs > 0) json["truncated_inputs"] = scored.truncated_inputs;
  if (scored.skipped_inputs > 0) json["skipped_inputs"] = scored.skipped_inputs;
  if (scored.long_targets > 0) json["long_targets"] = scored.long_targets;
  return json;
}

void write_predictions(const fs::path& path, const std::vector<TaskExample>& examples,
                       const std::vector<std::string>& predictions) {
  std::string lines;
  for (size_t n = 0; n < examples.size(); ++n) {
    const Json json = {{"prediction", predictions[n]}, {"target", examples[n].targets}};
    lines += json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  write_file_atomically(path, lines);
}

// Names the first few rows, and counts the others.
void tell(const char* what, const std::vector<BadRow>& rows) {
  constexpr size_t kShown = 10;
  for (size_t n = 0; n < std::min(kShown, rows.size()); ++n)
    std::cerr << what << ' ' << rows[n].place << ": " << rows[n].problem << '\n';
  if (rows.size() > kShown) std::cerr << what << ' ' << rows.size() - kShown << " more rows\n";
}

// Scores splits with one model, opened when it is first needed, or with given predictions.
class Evaluation {
 public:
  Evaluation(const EvalTaskOptions& options, std::string model, const ComputeOptions& compute)
      : options_(options), model_folder_(std::move(model)), compute_(compute) {}

  // `given` and `written` are files of predictions; empty: none.
  Scored score_split(const Task& task, const std::string& split, const fs::path& given, const fs::path& written) {
    const auto bad_rows = options_.bad_rows == "skip" ? BadRows::kSkip : BadRows::kRefuse;
    auto read = read_examples(task, options_.data, split, {.bad_rows = bad_rows});
    tell("skipped", read.bad_rows);

    Scored scored{.task = task.name, .split = split, .bad_rows = read.bad_rows.size(), .metrics = {}};
    std::vector<std::string> predictions;
    if (!given.empty()) {
      predictions = read_predictions(given, read.examples.size());
    } else {
      if (!model_) model_.emplace(model_folder_, compute_, options_.model);
      fit_inputs(read.examples, scored);
      count_long_targets(read.examples, scored);
      predictions = model_->predict(task, read.examples);
    }
    scored.examples = read.examples.size();
    if (!written.empty()) write_predictions(written, read.examples, predictions);
    scored.metrics = score(task, read.examples, predictions);
    return scored;
  }

 private:
  // Before the model runs: what it can't read whole is named, and cut, left out or refused.
  void fit_inputs(std::vector<TaskExample>& examples, Scored& scored) const {
    const int64_t length = options_.model.encoder_length;
    const auto found = find_long_texts(examples, &TaskExample::inputs, model_->vocabulary(), length - 1);
    if (found.empty()) return;
    if (options_.long_inputs == "refuse") refuse_long_inputs(examples, found, length);
    if (options_.long_inputs == "skip") {
      scored.skipped_inputs = found.size();
      return tell("skipped", leave_out(examples, found, length));
    }
    scored.truncated_inputs = found.size();
    std::cerr << scored.task << ": " << found.size() << " inputs are cut at " << length
              << " tokens (--encoder-length); the first is " << examples[found.front().example].place << '\n';
  }

  // Targets stay whole; but an output of --max-tokens can't equal a longer one.
  void count_long_targets(const std::vector<TaskExample>& examples, Scored& scored) const {
    if (options_.model.rank) return;
    const auto found =
        find_long_texts(examples, &TaskExample::targets, model_->vocabulary(), options_.model.max_tokens);
    scored.long_targets = found.size();
    if (found.empty()) return;
    const auto longest =
        std::max_element(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.tokens < b.tokens; });
    std::cerr << scored.task << ": " << found.size() << " targets are longer than any output: up to " << longest->tokens
              << " tokens, outputs end at " << options_.model.max_tokens << " (--max-tokens); the first is "
              << examples[found.front().example].place << '\n';
  }

  const EvalTaskOptions& options_;
  std::string model_folder_;
  const ComputeOptions& compute_;
  std::optional<TaskModel> model_;
};

void print_table(const std::vector<Scored>& rows) {
  size_t task_width = 4, split_width = 5;
  for (const auto& row : rows) {
    task_width = std::max(task_width, row.task.size());
    split_width = std::max(split_width, row.split.size());
  }
  const auto cell = [](const std::string& text, size_t width) {
    return text + std::string(width + 2 - text.size(), ' ');
  };
  for (const auto& row : rows)
    for (const auto& [name, value] : row.metrics)
      std::cout << cell(row.task, task_width) << cell(row.split, split_width) << cell(std::to_string(row.examples), 7)
                << cell(name, 18) << std::fixed << std::setprecision(2) << std::setw(7) << value << '\n';
}

// T5's average: each task counts once, whatever the number of its metrics and splits.
double average_of(const std::vector<Scored>& rows) {
  double sum = 0;
  size_t tasks = 0;
  for (size_t begin = 0, end = 0; begin < rows.size(); begin = end, ++tasks) {
    double of_task = 0;
    for (; end < rows.size() && rows[end].task == rows[begin].task; ++end) of_task += mean_of(rows[end].metrics);
    sum += of_task / static_cast<double>(end - begin);
  }
  return sum / static_cast<double>(tasks);
}

bool has_folder(const Task& task, const fs::path& data) {
  return std::any_of(task.folders.begin(), task.folders.end(),
                     [&](const auto& name) { return fs::is_directory(data / name); });
}

// FOLDER/TASK.SPLIT.jsonl, or FOLDER/TASK.jsonl of a task with one split.
fs::path predictions_file(const fs::path& folder, const Task& task, const std::string& split, bool only_split) {
  const auto with_split = folder / (task.name + "." + split + ".jsonl");
  return only_split && !fs::exists(with_split) ? folder / (task.name + ".jsonl") : with_split;
}

void eval_benchmark(const Benchmark& benchmark, const EvalTaskOptions& options, Evaluation& evaluation, bool json) {
  if (!options.predictions.empty()) fs::create_directories(options.predictions);
  std::vector<Scored> rows;
  std::vector<std::string> missing;
  for (const auto& name : benchmark.tasks) {
    const auto task = find_task(name);
    if (!has_folder(task, options.data)) {
      missing.push_back(name);
      continue;
    }
    const auto splits = options.split.empty() ? default_eval_splits(task, options.data) : std::vector{options.split};
    for (const auto& split : splits) {
      fs::path given, written;
      if (!options.from_predictions.empty())
        given = predictions_file(options.from_predictions, task, split, splits.size() == 1);
      if (!options.predictions.empty())
        written = predictions_file(options.predictions, task, split, splits.size() == 1);
      if (given.empty() || fs::exists(given))
        rows.push_back(evaluation.score_split(task, split, given, written));
      else if (missing.empty() || missing.back() != name)
        missing.push_back(name);
    }
  }
  SY_CHECK(!rows.empty(), "--task ", benchmark.name, ": none of its tasks is there; --data holds their folders (",
           join_names(benchmark.tasks), ")",
           options.from_predictions.empty() ? "" : ", --from-predictions files TASK.jsonl");
  const double average = average_of(rows);
  if (json) {
    Json result = {{"benchmark", benchmark.name}, {"average", average}, {"tasks", Json::array()}, {"missing", missing}};
    for (const auto& row : rows) result["tasks"].push_back(to_json(row));
    std::cout << result.dump() << std::endl;
    return;
  }
  print_table(rows);
  std::cout << "average of " << benchmark.name << (missing.empty() ? "" : " without " + join_names(missing)) << ": "
            << std::fixed << std::setprecision(2) << average << '\n';
}

}  // namespace

void add_eval_task_options(CLI::App& eval, EvalTaskOptions& options) {
  auto* task = eval.add_option("--task", options.task,
                               "score a task instead of text: one of the tasks of configs/tasks (glue_sst2, squad, "
                               "xquad.de, translate_en_de, ...), a .toml file of that form, or glue or superglue");
  eval.add_option("--data", options.data, "folder that holds the tasks' folders, or a task's own")->needs(task);
  eval.add_option("--split", options.split, "split of the task; default: validation, or test where there is none")
      ->needs(task);
  auto* given = eval.add_option("--from-predictions", options.from_predictions,
                                "outputs to score without a model: {\"prediction\": text} a line, in the examples' "
                                "order; of a benchmark a folder of files TASK.jsonl")
                    ->needs(task);
  eval.add_option("--predictions", options.predictions, "write the model's outputs there, in that form")
      ->needs(task)
      ->excludes(given);
  eval.add_option("--bad-rows", options.bad_rows,
                  "refuse, or skip: rows with a missing, mistyped or empty field or an unknown label")
      ->check(CLI::IsMember({"refuse", "skip"}))
      ->capture_default_str();
  eval.add_option("--long-inputs", options.long_inputs,
                  "cut, skip or refuse inputs of more than --encoder-length tokens")
      ->needs(task)
      ->excludes(given)
      ->check(CLI::IsMember({"cut", "skip", "refuse"}))
      ->capture_default_str();
  eval.add_option("--max-tokens", options.model.max_tokens, "most tokens of an output")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  eval.add_option("--beams", options.model.beams, "beam search with that many beams; 1: greedy")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  eval.add_flag("--rank", options.model.rank, "output the label or choice that the model finds most likely")
      ->needs(task)
      ->excludes(given);
}

void eval_task(const EvalTaskOptions& options, const std::string& model, const ComputeOptions& compute, bool json) {
  SY_CHECK(!model.empty() || !options.from_predictions.empty(),
           "--task needs --model, or --from-predictions with outputs");
  SY_CHECK(model.empty() || options.from_predictions.empty(),
           "--from-predictions scores given outputs; leave --model out, or use --predictions to write its outputs");
  SY_CHECK(
      options.predictions.empty() || options.long_inputs != "skip",
      "--long-inputs skip leaves rows out that only the model's vocabulary tells, so a file of --predictions could "
      "not be scored again; use cut or refuse with it");
  Evaluation evaluation(options, model, compute);
  if (const auto* benchmark = find_benchmark(options.task))
    return eval_benchmark(*benchmark, options, evaluation, json);
  auto task = find_task(options.task);
  const auto split = options.split.empty() ? default_eval_splits(task, options.data).front() : options.split;
  const auto scored = evaluation.score_split(task, split, options.from_predictions, options.predictions);
  if (json)
    std::cout << to_json(scored).dump() << std::endl;
  else
    print_table({scored});
}

}  // namespace switchyard
