// switchyard eval: a model's loss on held-out text under span corruption.
#include <cctype>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>

#include "base/config.h"
#include "base/error.h"
#include "base/messages.h"
#include "base/progress.h"
#include "checkpoint/checkpoint_store.h"
#include "cli/commands.h"
#include "cli/compute_options.h"
#include "cli/eval_task.h"
#include "cli/expert_memory.h"
#include "cli/model_vocabulary.h"
#include "cli/shared_model.h"
#include "data/pretraining.h"
#include "eval/held_out_loss.h"
#include "eval/text_loss.h"
#include "train/run_config.h"

namespace switchyard {
namespace {

struct EvalCommand {
  std::string model;
  std::vector<std::filesystem::path> text;
  bool json = false, each_file = false;
  std::optional<int64_t> max_examples, batch_size, encoder_length;
  std::optional<double> noise_density, mean_noise_span_length;
  int64_t seed = 0;
  ComputeOptions compute;
  EvalTaskOptions task;
};

// What the run that wrote a checkpoint evaluates by.
struct EvaluatedRun {
  DataConfig data;
  TrainConfig train;
};

// The run of DIR/checkpoints/step-N; nullopt for any other model.
std::optional<EvaluatedRun> run_of(const std::filesystem::path& model) {
  const auto checkpoint = std::filesystem::canonical(model);
  const auto file = checkpoint.parent_path().parent_path() / "run.toml";
  if (checkpoint.parent_path().filename() != "checkpoints" || !std::filesystem::exists(file)) return std::nullopt;
  const auto document = read_toml(file);
  EvaluatedRun run;
  read_section(run.data, document, "data");
  read_section(run.train, document, "train");
  return run;
}

// Text and options of the run's own evaluations, or the defaults, and over them what the command says.
void fill_in(EvalCommand& command, EvaluationOptions& options) {
  if (const auto run = run_of(command.model)) {
    const auto& [data, train] = *run;
    options.shape = {.encoder_length = data.encoder_length,
                     .decoder_length = data.decoder_length,
                     .corruption = {data.noise_density, data.mean_noise_span_length}};
    options.batch_size = train.micro_batch_size > 0 ? train.micro_batch_size : train.batch_size;
    if (command.compute.dtype.empty()) command.compute.dtype = train.dtype;
    if (command.text.empty()) {
      command.text.assign(data.eval_text.begin(), data.eval_text.end());
      command.each_file = command.each_file || data.eval_each_file;
      options.max_examples = train.eval_examples;
    }
  }
  SY_CHECK(!command.text.empty(), "eval needs --text, or the folder of a run with data.eval_text");
  if (command.encoder_length) {
    options.shape.encoder_length = *command.encoder_length;
    options.shape.decoder_length = 0;
  }
  options.shape.corruption.noise_density = command.noise_density.value_or(options.shape.corruption.noise_density);
  options.shape.corruption.mean_noise_span_length =
      command.mean_noise_span_length.value_or(options.shape.corruption.mean_noise_span_length);
  options.batch_size = command.batch_size.value_or(options.batch_size);
  options.max_examples = command.max_examples.value_or(options.max_examples);
  options.seed = static_cast<uint64_t>(command.seed);
}

// Whether the piece stands for one byte of text: "<0x0A>".
bool is_byte_piece(std::string_view piece) {
  const auto is_digit = [](char letter) { return std::isxdigit(static_cast<unsigned char>(letter)) != 0; };
  return piece.size() == 6 && piece.starts_with("<0x") && piece.ends_with('>') && is_digit(piece[3]) &&
         is_digit(piece[4]);
}

// UTF-8 bytes of the text behind target tokens: the masked-out spans, without sentinels, EOS and padding. A word mark
// counts as the space that it stands for, an unknown piece as one byte.
int64_t masked_text_bytes(const Vocabulary& vocabulary, const Batch& batch) {
  constexpr std::string_view kWordMark = "▁";
  int64_t bytes = 0;
  for (const int32_t id : batch.decoder_target_tokens) {
    if (id == vocabulary.pad_id() || id == vocabulary.eos_id() || vocabulary.sentinel_number(id) >= 0) continue;
    const auto piece = vocabulary.piece(id);
    if (id == vocabulary.unk_id() || is_byte_piece(piece)) {
      ++bytes;
      continue;
    }
    bytes += static_cast<int64_t>(piece.size());
    for (size_t mark = piece.find(kWordMark); mark != piece.npos; mark = piece.find(kWordMark, mark + kWordMark.size()))
      bytes -= static_cast<int64_t>(kWordMark.size()) - 1;
  }
  return bytes;
}

Json losses_by_file(const std::vector<std::string>& names, const TextLoss& loss) {
  Json files = Json::object();
  for (size_t file = 0; file < names.size(); ++file)
    files[names[file]] = names.size() == 1 ? loss.loss  // batches of one text have no parts
                                           : loss.parts[file].loss / static_cast<double>(loss.parts[file].labels);
  return files;
}

void run(EvalCommand& command) {
  command.model = resolve_model_folder(command.model).string();
  apply(command.compute);
  EvaluationOptions options;
  fill_in(command, options);
  const auto dtype = dtype_of(command.compute.dtype.empty() ? "fp32" : command.compute.dtype);
  const auto shared =
      open_shared_model(command.model, dtype, device_of(command.compute), command.compute.expert_memory);
  const auto& config = shared.model.config;
  const auto& weights = shared.model.weights;
  const auto vocabulary = open_vocabulary(command.model, config);
  options.batch_size = evaluation_batch_size(config.routing, options.shape.encoder_length, options.batch_size);
  auto held_out = open_held_out(command.text, command.each_file, vocabulary, {});
  const EvaluationData data(std::move(held_out.texts), special_tokens(vocabulary), options);

  int64_t text_bytes = 0;
  const int64_t num_batches = data.num_batches();
  Progress progress({.name = "eval", .unit = "batches"}, static_cast<double>(num_batches));
  const auto loss = text_loss(config, weights, num_batches, [&](int64_t index) {
    progress.update(static_cast<double>(index), "");
    auto batch = data.batch(index);
    text_bytes += masked_text_bytes(vocabulary, batch);
    return batch;
  });
  progress.update(static_cast<double>(num_batches), "");
  progress.finish();

  const double nats = loss.loss * static_cast<double>(loss.tokens);
  Json result = {{"loss", loss.loss},
                 {"neg_log_perplexity", -loss.loss},
                 {"bits_per_byte", nats / std::log(2.0) / static_cast<double>(std::max<int64_t>(1, text_bytes))},
                 {"accuracy", loss.accuracy},
                 {"tokens", loss.tokens},
                 {"bytes", text_bytes},
                 {"examples", data.num_examples()},
                 {"dropped_fraction", loss.dropped_fraction}};
  if (command.each_file) result["files"] = losses_by_file(held_out.names, loss);
  if (const auto limit = command.compute.expert_memory) {
    const auto reads = shared.model.experts->reads();
    result["expert_memory"] = expert_memory_json(reads, *limit);
    say(expert_memory_line(reads, *limit));
  }
  if (command.json)
    std::cout << result.dump() << std::endl;
  else
    for (const auto& [name, value] : result.items())
      std::cout << name << std::string(20 - name.size(), ' ') << value.dump() << '\n';
}

}  // namespace

void add_eval(CLI::App& app) {
  auto command = std::make_shared<EvalCommand>();
  auto* eval = app.add_subcommand(
      "eval",
      "Measure a model on held-out text: spans of it are masked with a fixed seed, and the model predicts them.\n"
      "loss: mean cross entropy in nats a target token (sentinels and EOS are targets too); neg_log_perplexity: "
      "-loss;\n"
      "bits_per_byte: all those nats in bits, over the bytes of the masked-out text, so that models with different\n"
      "vocabularies compare; accuracy: share of target tokens that the model puts first; dropped_fraction: tokens "
      "that\n"
      "found no slot at an expert, mean over sparse layers (capacity as in evaluation).\n"
      "Of a run, lengths, masks, batch size and precision are those of its own evaluations: the loss is its "
      "eval_loss.\n"
      "With --task: T5's metrics of a task, of the model's outputs or of given ones.");
  eval->add_option("--model", command->model, "model directory, a run's folder for its newest checkpoint, or RUN@best");
  eval->add_option("--text", command->text,
                   "held-out text: files or folders; .txt, .jsonl (field text), also .gz or .zst. Left out for a run: "
                   "its eval_text, as its own evaluations use it");
  eval->add_flag("--each-file", command->each_file,
                 "also the loss of each file, one a language, say, from the same pass; as a run's own evaluations do");
  add_eval_task_options(*eval, command->task);
  eval->add_flag("--json", command->json, "print one JSON object");
  eval->add_option("--max-examples", command->max_examples,
                   "segments to use, from the beginning, of each file apart with --each-file; 0: all")
      ->check(CLI::NonNegativeNumber);
  eval->add_option(
          "--batch-size", command->batch_size,
          "segments a forward pass, at least those that are routed together; no figure depends on it [8, or the run's]")
      ->check(CLI::PositiveNumber);
  eval->add_option("--encoder-length", command->encoder_length,
                   "tokens of a corrupted segment, EOS included [512, or the run's]")
      ->check(CLI::PositiveNumber);
  eval->add_option("--noise-density", command->noise_density, "share of tokens masked [0.15, or the run's]");
  eval->add_option("--mean-span-length", command->mean_noise_span_length, "tokens of a masked span [3, or the run's]");
  eval->add_option("--seed", command->seed, "of the masks")->capture_default_str();
  add_compute_options(*eval, command->compute);
  add_expert_memory(*eval, command->compute);
  eval->footer(
      "Example: switchyard eval --model runs/mini --text held-out.txt --json\n"
      "         switchyard eval --task glue_sst2 --data DATA --from-predictions outputs.jsonl");
  eval->callback([command] {
    if (!command->task.task.empty()) {
      SY_CHECK(command->text.empty(), "--task and --text are two evaluations; give one of them");
      command->task.model.batch_size = command->batch_size.value_or(command->task.model.batch_size);
      command->task.model.encoder_length = command->encoder_length.value_or(command->task.model.encoder_length);
      return eval_task(command->task, command->model, command->compute, command->json);
    }
    SY_CHECK(!command->model.empty(), "eval needs --model, or --task");
    run(*command);
  });
}

}  // namespace switchyard
