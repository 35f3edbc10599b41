// switchyard eval: a model's loss on held-out text under span corruption.
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <iostream>
#include <memory>

#include "base/config.h"
#include "base/error.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/model_directory.h"
#include "cli/commands.h"
#include "cli/compute_options.h"
#include "cli/eval_task.h"
#include "cli/model_vocabulary.h"
#include "data/pretraining.h"
#include "eval/text_loss.h"

namespace switchyard {
namespace {

struct EvalCommand {
  std::string model;
  std::vector<std::filesystem::path> text;
  bool json = false;
  int64_t max_examples = 0, batch_size = 8, seed = 0;
  SegmentShape shape;
  ComputeOptions compute;
  EvalTaskOptions task;
};

// UTF-8 bytes of the text behind target tokens: the masked-out spans, without sentinels, EOS and padding. A word mark
// counts as the space that it stands for, an unknown piece as one byte.
int64_t masked_text_bytes(const Vocabulary& vocabulary, const Batch& batch) {
  constexpr std::string_view kWordMark = "▁";
  int64_t bytes = 0;
  for (const int32_t id : batch.decoder_target_tokens) {
    if (id == vocabulary.pad_id() || id == vocabulary.eos_id() || vocabulary.sentinel_number(id) >= 0) continue;
    if (id == vocabulary.unk_id()) {
      ++bytes;
      continue;
    }
    const auto piece = vocabulary.piece(id);
    bytes += static_cast<int64_t>(piece.size());
    for (size_t mark = piece.find(kWordMark); mark != piece.npos; mark = piece.find(kWordMark, mark + kWordMark.size()))
      bytes -= static_cast<int64_t>(kWordMark.size()) - 1;
  }
  return bytes;
}

void run(EvalCommand& command) {
  command.model = resolve_model_folder(command.model).string();
  apply(command.compute);
  const auto dtype = dtype_of(command.compute.dtype.empty() ? "fp32" : command.compute.dtype);
  const auto [config, weights] = open_for_inference(command.model, dtype);
  const auto vocabulary = open_vocabulary(command.model, config);
  const EvaluationData data(
      TokenStore::open(command.text, vocabulary, {}), special_tokens(vocabulary),
      {.shape = command.shape,
       .seed = static_cast<uint64_t>(command.seed),
       .batch_size = evaluation_batch_size(config.routing, command.shape.encoder_length, command.batch_size),
       .max_examples = command.max_examples});

  int64_t text_bytes = 0;
  const int64_t num_batches = data.num_batches();
  const bool show = isatty(STDERR_FILENO) != 0;
  const auto loss = text_loss(config, weights, num_batches, [&](int64_t index) {
    if (show) std::cerr << "\revaluating batch " << index + 1 << " of " << num_batches << std::flush;
    auto batch = data.batch(index);
    text_bytes += masked_text_bytes(vocabulary, batch);
    return batch;
  });
  if (show) std::cerr << '\r' << std::string(60, ' ') << '\r' << std::flush;

  const double nats = loss.loss * static_cast<double>(loss.tokens);
  const Json result = {{"loss", loss.loss},
                       {"neg_log_perplexity", -loss.loss},
                       {"bits_per_byte", nats / std::log(2.0) / static_cast<double>(std::max<int64_t>(1, text_bytes))},
                       {"accuracy", loss.accuracy},
                       {"tokens", loss.tokens},
                       {"bytes", text_bytes},
                       {"examples", data.num_examples()},
                       {"dropped_fraction", loss.dropped_fraction}};
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
      "With --task: T5's metrics of a task, of the model's outputs or of given ones.");
  eval->add_option("--model", command->model, "model directory, a run's folder for its newest checkpoint, or RUN@best");
  eval->add_option("--text", command->text,
                   "held-out text: files or folders; .txt, .jsonl (field text), also .gz or .zst");
  add_eval_task_options(*eval, command->task);
  eval->add_flag("--json", command->json, "print one JSON object");
  eval->add_option("--max-examples", command->max_examples, "segments to use, from the beginning; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  eval->add_option("--batch-size", command->batch_size,
                   "segments a forward pass, at least those that are routed together; no figure depends on it")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  eval->add_option("--encoder-length", command->shape.encoder_length, "tokens of a corrupted segment, EOS included")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  eval->add_option("--noise-density", command->shape.corruption.noise_density, "share of tokens masked")
      ->capture_default_str();
  eval->add_option("--mean-span-length", command->shape.corruption.mean_noise_span_length, "tokens of a masked span")
      ->capture_default_str();
  eval->add_option("--seed", command->seed, "of the masks")->capture_default_str();
  add_compute_options(*eval, command->compute);
  eval->footer(
      "Example: switchyard eval --model runs/mini --text held-out.txt --json\n"
      "         switchyard eval --task glue_sst2 --data DATA --from-predictions outputs.jsonl");
  eval->callback([command] {
    if (!command->task.task.empty()) {
      SY_CHECK(command->text.empty(), "--task and --text are two evaluations; give one of them");
      command->task.model.batch_size = command->batch_size;
      command->task.model.encoder_length = command->shape.encoder_length;
      return eval_task(command->task, command->model, command->compute, command->json);
    }
    SY_CHECK(!command->model.empty() && !command->text.empty(), "eval needs --model and --text, or --task");
    run(*command);
  });
}

}  // namespace switchyard
