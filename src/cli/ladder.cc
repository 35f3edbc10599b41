// switchyard ladder: sparse models and their dense twins over sizes, lengths, experts and seeds, run by run.
#include <iostream>

#include "base/files.h"
#include "base/interrupt.h"
#include "base/messages.h"
#include "cli/commands.h"
#include "cli/compute_options.h"
#include "train/step_times.h"

namespace switchyard {
namespace {

struct LadderCommand {
  std::string file, out;
  std::vector<std::string> settings;
  bool step_times = false, json = false, quiet = false;
  int64_t rounds = 9, steps = 5;
  ComputeOptions compute;
};

// Everything that the report draws, as one file beside the runs.
void write_summary(const Ladder& ladder, const std::filesystem::path& out) {
  Json results = Json::array();
  for (const auto& result : ladder.results()) results.push_back(to_json(result));
  Json summary{{"baseline", ladder.config().baseline}, {"runs", results}};
  if (const auto times = out / "step_times.json"; std::filesystem::exists(times))
    summary["step_times"] = parse_json(read_file(times), times.string());
  write_file_atomically(out / "ladder.json", summary.dump(1) + "\n");
}

void measure(const Ladder& ladder, const LadderCommand& command) {
  const auto times = measure_step_times(ladder, command.out, command.rounds, command.steps, device_of(command.compute),
                                        command.quiet || command.json);
  if (interrupted()) throw CLI::RuntimeError(130);
  write_file_atomically(std::filesystem::path(command.out) / "step_times.json", to_json(times).dump(1) + "\n");
  write_summary(ladder, command.out);
  if (command.json) {
    std::cout << to_json(times).dump() << "\n";
    return;
  }
  std::printf("%-14s %-22s %12s   lowest - highest\n", "rung", "contender", "ms/step");
  for (const auto& time : times)
    std::printf("%-14s %-22s %12.1f   %.1f - %.1f\n", time.rung.c_str(), time.contender.c_str(), time.median * 1e3,
                time.lowest * 1e3, time.highest * 1e3);
}

void climb(const Ladder& ladder, const LadderCommand& command) {
  const bool quiet = command.quiet || command.json;
  while (const auto run = ladder.next()) {
    if (!quiet) say("run ", ladder.num_done() + 1, " of ", ladder.num_runs(), ": ", ladder.name_of(*run));
    Trainer trainer(ladder.run_config(*run), ladder.folder_of(*run), {.resume = true}, device_of(command.compute));
    if (!run_training(trainer, quiet)) {
      write_summary(ladder, command.out);
      throw CLI::RuntimeError(130);
    }
    ladder.keep(*run, trainer);
    write_summary(ladder, command.out);
  }
  if (command.json) {
    std::cout << read_file(std::filesystem::path(command.out) / "ladder.json");
    return;
  }
  for (const auto& result : ladder.results())
    std::printf("%-12s %-20s rate %-8g seed %-3lld %8lld steps   held-out loss %.4f\n", result.rung.c_str(),
                result.contender.c_str(), result.rate, static_cast<long long>(result.seed),
                static_cast<long long>(result.steps), result.curve.back().loss);
  say("page: switchyard report ", command.out);
}

void run(LadderCommand& command) {
  apply(command.compute);
  if (!command.compute.dtype.empty()) command.settings.push_back("train.dtype=" + command.compute.dtype);
  catch_interrupts();
  std::filesystem::create_directories(command.out);
  const Ladder ladder(command.file, command.out, command.settings);
  if (command.step_times)
    measure(ladder, command);
  else
    climb(ladder, command);
}

}  // namespace

void add_ladder(CLI::App& app) {
  auto command = std::make_shared<LadderCommand>();
  auto* ladder =
      app.add_subcommand("ladder", "Train a ladder of sparse and dense models: sizes, lengths, experts, seeds");
  ladder->add_option("file", command->file, "LADDER.toml: run, baseline, seeds, rates, rungs, contenders")->required();
  ladder->add_option("--out", command->out, "folder of the ladder; one that was cut short is continued")->required();
  ladder->add_option("--set", command->settings, "override a key in every run: section.key=value (repeatable)")
      ->allow_extra_args(false);
  ladder->add_flag("--step-times", command->step_times,
                   "only measure how long steps take, contenders in turn: wants a quiet machine");
  ladder->add_option("--rounds", command->rounds, "of --step-times")->check(CLI::PositiveNumber)->capture_default_str();
  ladder->add_option("--steps", command->steps, "of --step-times, in each round")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  ladder->add_flag("--json", command->json, "print one JSON object, nothing else");
  ladder->add_flag("--quiet", command->quiet, "no progress bar");
  add_compute_options(*ladder, command->compute);
  ladder->footer("Example: switchyard ladder configs/ladder/ladder.toml --out runs/ladder --threads 1");
  ladder->callback([command] { run(*command); });
}

}  // namespace switchyard
