// switchyard bench: speed of training and generation at a preset's shape, random weights, next to the machine's own
// limits.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <set>

#include "base/clock.h"
#include "base/config.h"
#include "checkpoint/model_tensors.h"
#include "checkpoint/quantized_tensors.h"
#include "checkpoint/weight_memory.h"
#include "cli/commands.h"
#include "cli/compute_options.h"
#include "cli/timed_steps.h"
#include "generate/session.h"
#include "kernels/instruction_set.h"
#include "kernels/product.h"
#include "model/flops.h"
#include "train/trainer.h"

namespace switchyard {
namespace {

struct BenchCommand {
  std::string model = "switch-mini-8";
  int64_t batch = 0;  // 0: the job's default
  int64_t encoder_length = 512, decoder_length = 114;
  int64_t input_length = 128, max_tokens = 64;
  int64_t repeats = 5;
  int64_t recompute_blocks = 0;
  std::string weights;  // as stored; empty: in the compute dtype
  bool json = false;
  ComputeOptions compute;
};

struct Spread {
  double median, low, high;
};
Spread spread(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {values[values.size() / 2], values.front(), values.back()};
}

// Rate of one large product in the compute dtype, GFLOP/s: the machine's limit in the same run.
double gemm_gflops(at::ScalarType dtype) {
  const auto a = at::randn({1024, 1024}).to(dtype), b = at::randn({1024, 4096}).to(dtype);
  double best = 0.0;
  for (int repeat = 0; repeat < 12; ++repeat) {
    const double start = steady_seconds();
    const auto product = at::mm(a, b);
    best = std::max(best, 2.0 * 1024 * 1024 * 4096 / (steady_seconds() - start) / 1e9);
  }
  return best;
}

// GB/s of reading memory far larger than the caches by all threads, laid out as weights are and asked for ahead as
// kernels do (kernels/product.h). The best of many passes: others on the machine make one slower, nothing makes it
// faster.
double read_bandwidth() {
  constexpr int64_t kLine = 64 / sizeof(int64_t);
  constexpr double kSeconds = 1.0;
  const auto block = map_zeros({int64_t{1} << 26}, at::kLong);
  prefer_huge_pages(block);
  block.fill_(1);
  const int64_t* data = block.const_data_ptr<int64_t>();
  const int64_t lines = block.numel() / kLine, grain = (lines + at::get_num_threads() - 1) / at::get_num_threads();
  std::atomic<int64_t> total = 0;
  double best = 0.0;
  for (const double begin = steady_seconds(); steady_seconds() - begin < kSeconds;) {
    const double start = steady_seconds();
    at::parallel_for(0, lines, grain, [&](int64_t first, int64_t last) {
      int64_t sum = 0;
      for (const int64_t* line = data + first * kLine; line < data + last * kLine; line += kLine) {
        __builtin_prefetch(reinterpret_cast<const char*>(line) + kernels::kPrefetchBytes, 0, 3);
        for (int64_t i = 0; i < kLine; ++i) sum += line[i];
      }
      total += sum;
    });
    best = std::max(best, static_cast<double>(block.nbytes()) / (steady_seconds() - start) / 1e9);
  }
  return best;
}

void print(const BenchCommand& command, Json result) {
  result["instructions"] = kernels::instruction_set();
  if (command.json) {
    std::cout << result.dump() << "\n";
    return;
  }
  for (const auto& [key, value] : result.items()) std::fprintf(stdout, "%-24s %s\n", key.c_str(), value.dump().c_str());
}

void bench_train(const BenchCommand& command) {
  apply(command.compute);
  const auto dtype = dtype_of(command.compute.dtype.empty() ? "bf16" : command.compute.dtype);
  const auto config = preset(command.model);
  const int64_t batch = command.batch > 0 ? command.batch : 8;
  const auto steps = timed_steps(config, {.dtype = dtype, .recompute_blocks = command.recompute_blocks}, batch,
                                 command.encoder_length, command.decoder_length, command.repeats);
  const auto time = spread(steps.seconds);
  const double gemm = gemm_gflops(dtype);
  const double flops = 3.0 * static_cast<double>(batch) *
                       (forward_flops(config, command.encoder_length, command.decoder_length) +
                        router_flops(config, command.encoder_length, command.decoder_length));
  // What an update cannot do without: gradients once, weights in and out, and their copies in bf16.
  double values = 0.0;
  for (const auto& spec : parameter_specs(config)) values += static_cast<double>(spec.numel());
  const double update_bytes = 12.0 * values;  // 2 + 8 + 2 in bf16, 4 + 8 in f32
  const double update = spread(steps.optimizer_seconds).median, bandwidth = read_bandwidth();
  const auto tokens = static_cast<double>(batch * (command.encoder_length + command.decoder_length));
  print(command, {{"model", command.model},
                  {"dtype", dtype == at::kBFloat16 ? "bf16" : "fp32"},
                  {"batch", batch},
                  {"tokens_per_second", tokens / time.median},
                  {"step_seconds", time.median},
                  {"step_seconds_min", time.low},
                  {"step_seconds_max", time.high},
                  {"model_flops_utilization", flops / time.median / 1e9 / gemm},
                  {"gemm_gflops", gemm},
                  {"optimizer_seconds", update},
                  {"optimizer_bandwidth_share", update_bytes / update / 1e9 / bandwidth},
                  {"read_gigabytes_per_second", bandwidth},
                  {"loss", steps.last_loss}});
}

// Bytes of a value where a step reads it.
double bytes_of_value(const ParameterSpec& spec, at::ScalarType dtype, std::optional<ops::QuantizedForm> form) {
  if (!form || (spec.role != Role::kEmbedding && !can_be_quantized(spec))) return dtype == at::kBFloat16 ? 2.0 : 4.0;
  const auto here = spec.role == Role::kEmbedding ? ops::QuantizedForm::kInt8 : *form;  // the table of a tied output
  return static_cast<double>(kernels::quantized_row_bytes(here, spec.shape.back())) /
         static_cast<double>(spec.shape.back());
}

void bench_generate(const BenchCommand& command) {
  apply(command.compute);
  const auto dtype = dtype_of(command.compute.dtype.empty() ? "bf16" : command.compute.dtype);
  const auto config = preset(command.model);
  const int64_t batch = command.batch > 0 ? command.batch : 1;
  const at::NoGradGuard no_grad;
  // As weights come from files, and lie in memory as they do then.
  auto stored_config = config;
  StoredTensors stored;
  const auto storage = command.weights == "int8" ? at::kChar : command.weights == "int4" ? at::kByte : dtype;
  const auto form = ops::quantized_form(storage);
  for (const auto& [name, tensor, stored_dtype, read] : tensors_of(config, initialize(config, 0), storage))
    stored.emplace(name, stored_in_memory(read ? read() : tensor));
  stored = with_quantized(std::move(stored), command.model);
  const auto weights =
      compute_weights_from(stored_config, stored, dtype, at::kCPU, command.model, std::make_shared<ExpertsOnDemand>());
  const auto ids = at::randint(3, config.vocab_size, {batch, command.input_length}, at::kLong);
  std::vector<double> seconds, step_seconds;
  for (int64_t repeat = 0; repeat < command.repeats + 1; ++repeat) {
    const double start = steady_seconds();
    Session session(config, weights, /*vocabulary=*/nullptr, {.rows = batch, .max_length = command.max_tokens});
    for (int64_t row = 0; row < batch; ++row) {
      const int64_t* const first = ids.const_data_ptr<int64_t>() + row * command.input_length;
      session.submit({.ids = {first, first + command.input_length},
                      .search = {.max_tokens = command.max_tokens, .eos_id = -1}},  // no id ends it
                     {});
    }
    session.step();  // the encoder, and one token
    const double decoding = steady_seconds();
    while (session.step()) {
    }
    if (repeat == 0) continue;
    seconds.push_back(steady_seconds() - start);
    step_seconds.push_back((steady_seconds() - decoding) /
                           static_cast<double>(std::max<int64_t>(1, command.max_tokens - 1)));
  }
  // Weights that one step reads: everything but the encoder, the input embedding and the experts that no token chose.
  double bytes = 0.0;
  ModelWeights shapes;
  const auto parameters = list_parameters(config, shapes);
  std::set<const at::Tensor*> cached;  // the encoder's keys and values are in the cache
  for (const auto& block : shapes.decoder.blocks) cached.insert({&block.cross_attention.k, &block.cross_attention.v});
  for (const auto& [spec, tensor] : parameters) {
    if (spec.name.starts_with("encoder.") || (spec.role == Role::kEmbedding && !config.tie_output)) continue;
    if (cached.contains(tensor)) continue;
    // Tokens that choose at random leave some experts out.
    const double missed = 1.0 - 1.0 / static_cast<double>(std::max<int64_t>(1, config.routing.num_experts));
    const double touched = spec.is_expert() ? 1.0 - std::pow(missed, static_cast<double>(batch)) : 1.0;
    bytes += static_cast<double>(spec.numel()) * bytes_of_value(spec, dtype, form) * touched;
  }
  const auto time = spread(seconds), step = spread(step_seconds);
  const double bandwidth = read_bandwidth();
  const auto tokens = static_cast<double>(batch * command.max_tokens);
  print(command, {{"model", command.model},
                  {"dtype", dtype == at::kBFloat16 ? "bf16" : "fp32"},
                  {"weights", form                     ? command.weights
                              : dtype == at::kBFloat16 ? "bf16"
                                                       : "fp32"},
                  {"batch", batch},
                  {"tokens_per_second", tokens / time.median},
                  {"seconds", time.median},
                  {"seconds_min", time.low},
                  {"seconds_max", time.high},
                  {"step_seconds", step.median},
                  {"bandwidth_utilization", bytes / step.median / 1e9 / bandwidth},
                  {"read_bandwidth_gb_s", bandwidth}});
}

}  // namespace

void add_bench(CLI::App& app) {
  auto command = std::make_shared<BenchCommand>();
  auto* bench = app.add_subcommand("bench", "Measure training and generation speed at a preset's shape");
  bench->require_subcommand(1);
  auto* train = bench->add_subcommand("train", "One optimiser step, 8 x (512 + 114) tokens by default");
  auto* generate = bench->add_subcommand("generate", "Greedy decoding, 128 tokens in, 64 out by default");
  for (auto* job : {train, generate}) {
    job->add_option("--model", command->model, "preset")->capture_default_str();
    job->add_option("--batch", command->batch, "sequences; 0: 8 for train, 1 for generate")->capture_default_str();
    job->add_option("--repeats", command->repeats, "timed repeats, after a warm-up")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    job->add_flag("--json", command->json, "print one JSON object");
    add_compute_options(*job, command->compute);
  }
  train->add_option("--encoder-length", command->encoder_length)->check(CLI::PositiveNumber)->capture_default_str();
  train->add_option("--decoder-length", command->decoder_length)->check(CLI::PositiveNumber)->capture_default_str();
  train
      ->add_option("--recompute-blocks", command->recompute_blocks,
                   "of each stack, the first, as train.recompute_blocks")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  generate->add_option("--input-length", command->input_length)->check(CLI::PositiveNumber)->capture_default_str();
  generate->add_option("--max-tokens", command->max_tokens)->check(CLI::PositiveNumber)->capture_default_str();
  train->callback([command] { bench_train(*command); });
  generate->add_option("--weights", command->weights, "int8 or int4: quantised (bf16 compute); default: as computed")
      ->check(CLI::IsMember({"int8", "int4"}));
  generate->callback([command] { bench_generate(*command); });
  add_bench_routing(*bench);
  add_bench_input(*bench);
  bench->footer("Example: switchyard bench train --model switch-mini-8 --json");
}

}  // namespace switchyard
