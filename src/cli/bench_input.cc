// switchyard bench input: what one thread makes of text in a second, beside what a training step reads in one.
#include <algorithm>
#include <cstdio>
#include <iostream>

#include "base/clock.h"
#include "base/config.h"
#include "checkpoint/checkpoint_store.h"
#include "cli/commands.h"
#include "cli/compute_options.h"
#include "cli/model_vocabulary.h"
#include "cli/timed_steps.h"
#include "data/packing.h"
#include "data/pretraining.h"
#include "text/vocabulary.h"

namespace switchyard {
namespace {

struct InputCommand {
  std::vector<std::string> text;
  std::string vocab, model = "switch-mini-8";
  int64_t encoder_length = 512, batch = 8, steps = 200, repeats = 5;
  bool json = false;
  ComputeOptions compute;
};

int64_t count_real(const Batch& batch) {
  int64_t count = 0;
  for (const auto* ids : {&batch.encoder_input_tokens, &batch.decoder_target_tokens})
    count += static_cast<int64_t>(ids->size()) - std::count(ids->begin(), ids->end(), 0);
  return count;
}

// Short examples, as tasks have them: 16 to 63 inputs and 2 to 9 targets, one behind the other in the text.
class ShortExamples : public ExampleSource {
 public:
  ShortExamples(const TokenStore& tokens, int64_t encoder_length, int64_t decoder_length)
      : tokens_(tokens), shape_{1, encoder_length, decoder_length} {}

  Batch rows(int64_t step, int64_t first, int64_t count) const override {
    check_rows(shape_, first, count);
    Batch batch{.batch_size = count, .encoder_length = shape_.encoder_length, .decoder_length = shape_.decoder_length};
    const auto inputs = static_cast<size_t>(16 + step * 7 % 48), targets = static_cast<size_t>(2 + step * 3 % 8);
    const int64_t begin = step * 64 % (tokens_.size() - 72);
    batch.encoder_input_tokens.assign(static_cast<size_t>(shape_.encoder_length), 0);
    batch.decoder_target_tokens.assign(static_cast<size_t>(shape_.decoder_length), 0);
    tokens_.read(begin, std::span(batch.encoder_input_tokens).first(inputs));
    tokens_.read(begin + 63, std::span(batch.decoder_target_tokens).first(targets));
    return batch;
  }
  SourceShape shape() const override { return shape_; }
  int64_t examples_per_epoch() const override { return 0; }

 private:
  const TokenStore& tokens_;
  SourceShape shape_;
};

struct Rate {
  double tokens_per_second, filled;  // tokens without padding, and their share of positions
};

Rate rate_of(const ExampleSource& source, int64_t steps) {
  int64_t tokens = 0;
  const double start = steady_seconds();
  for (int64_t step = 0; step < steps; ++step) tokens += count_real(source.batch(step));
  const double seconds = steady_seconds() - start;
  const auto positions = static_cast<double>(steps * source.shape().positions());
  return {static_cast<double>(tokens) / seconds, static_cast<double>(tokens) / positions};
}

void bench_input(const InputCommand& command) {
  const auto vocabulary = Vocabulary::load(resolve_vocabulary(command.vocab));
  apply(command.compute);
  double start = steady_seconds();
  const auto tokens = TokenStore::open({command.text.begin(), command.text.end()}, vocabulary, {.num_threads = 1});
  const double tokenise = static_cast<double>(tokens.size()) / (steady_seconds() - start);
  const PretrainingData pretraining(tokens, special_tokens(vocabulary),
                                    {.shape = {.encoder_length = command.encoder_length}, .batch_size = command.batch});
  const auto shape = pretraining.shape();
  const auto corrupt = rate_of(pretraining, command.steps);
  const auto pack = rate_of(
      PackedSource(std::make_unique<ShortExamples>(tokens, shape.encoder_length, shape.decoder_length), command.batch),
      command.steps);
  const double together = 1.0 / (1.0 / tokenise + 1.0 / corrupt.tokens_per_second + 1.0 / pack.tokens_per_second);
  const auto dtype = dtype_of(command.compute.dtype.empty() ? "bf16" : command.compute.dtype);
  auto seconds = timed_steps(preset(command.model), {.dtype = dtype}, command.batch, shape.encoder_length,
                             shape.decoder_length, command.repeats)
                     .seconds;
  std::sort(seconds.begin(), seconds.end());
  const double step = static_cast<double>(shape.positions()) / seconds[seconds.size() / 2];
  const Json result = {{"tokenise_tokens_per_second", tokenise},
                       {"corrupt_tokens_per_second", corrupt.tokens_per_second},
                       {"pack_tokens_per_second", pack.tokens_per_second},
                       {"packed_rows_filled", pack.filled},
                       {"input_tokens_per_second", together},
                       {"model", command.model},
                       {"step_tokens_per_second", step},
                       {"input_over_step", together / step}};
  if (command.json) {
    std::cout << result.dump() << "\n";
    return;
  }
  for (const auto& [key, value] : result.items()) std::printf("%-28s %s\n", key.c_str(), value.dump().c_str());
}

}  // namespace

void add_bench_input(CLI::App& bench) {
  auto command = std::make_shared<InputCommand>();
  auto* input = bench.add_subcommand("input", "Tokenise, corrupt and pack text on one thread, beside a training step");
  input->add_option("--text", command->text, "text files or folders, as data.text")->required();
  input->add_option("--vocab", command->vocab, "spiece.model, a model directory or a run")->required();
  input->add_option("--model", command->model, "preset of the step")->capture_default_str();
  input->add_option("--encoder-length", command->encoder_length)->check(CLI::PositiveNumber)->capture_default_str();
  input->add_option("--batch", command->batch, "rows")->check(CLI::PositiveNumber)->capture_default_str();
  input->add_option("--steps", command->steps, "batches that are corrupted, and packed")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  input->add_option("--repeats", command->repeats, "timed training steps, after a warm-up")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  input->add_flag("--json", command->json, "print one JSON object");
  add_compute_options(*input, command->compute);
  input->callback([command] { bench_input(*command); });
}

}  // namespace switchyard
