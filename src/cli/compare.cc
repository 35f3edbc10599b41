// switchyard compare: trains runs side by side on the same data and says which learns more, by a table and by samples.
#include <cstdio>
#include <iostream>

#include "base/files.h"
#include "base/interrupt.h"
#include "cli/commands.h"
#include "cli/compute_options.h"
#include "cli/samples.h"
#include "model/flops.h"
#include "train/comparison.h"

namespace switchyard {
namespace {

struct CompareCommand {
  std::vector<std::string> run_files, settings;
  std::string out;
  double minutes = 0.0;
  ResumeOptions start;
  bool json = false, quiet = false;
  ComputeOptions compute;
};

std::vector<ComparedRun> open_runs(const CompareCommand& command) {
  std::vector<ComparedRun> runs;
  for (const std::filesystem::path path : command.run_files) {
    const std::string name = path.stem().string();
    const auto out = std::filesystem::path(command.out) / name;
    const auto config = read_run(path, command.settings, command.start.checkpoint(out));
    for (const auto& other : runs)
      SY_CHECK(other.name != name, "compare: two run files are called ", name, "; rename one");
    runs.push_back({name, std::make_unique<Trainer>(config, out, command.start, device_of(command.compute))});
  }
  return runs;
}

void print_table(const Comparison& comparison, const std::vector<ComparedRun>& runs) {
  std::printf("\n%-18s %12s %14s %10s %8s %9s   held-out loss (nats/token)\n", "", "parameters", "FLOPs/token",
              "tokens/s", "steps", "dropped");
  std::printf("%-18s %12s %14s %10s %8s %9s   at step %-6lld at %.0f s\n", "run", "", "(forward)", "", "", "",
              static_cast<long long>(comparison.equal_step), comparison.equal_seconds);
  for (size_t n = 0; n < runs.size(); ++n) {
    const auto& outcome = comparison.runs[n];
    const auto& run = runs[n].trainer->run();
    const int64_t per_sequence = runs[n].trainer->tokens_per_step() / run.train.batch_size;
    const int64_t decoder_length = per_sequence - run.data.encoder_length;
    std::printf(
        "%-18s %11.2fM %13.2fM %10.0f %8lld %8.2f%%   %-14.4f %.4f\n", outcome.name.c_str(),
        static_cast<double>(runs[n].trainer->num_parameters()) / 1e6,
        forward_flops(run.model, run.data.encoder_length, decoder_length) / static_cast<double>(per_sequence) / 1e6,
        outcome.tokens_per_second, static_cast<long long>(outcome.steps), outcome.dropped_fraction * 100.0,
        loss_at_step(outcome, comparison.equal_step), loss_at_time(outcome, comparison.equal_seconds));
  }
}

void print_results(const Comparison& comparison, const std::vector<ComparedRun>& runs, const Json& samples,
                   const std::filesystem::path& out) {
  print_table(comparison, runs);
  print_samples(samples);
  std::printf("\n");
  for (const auto& outcome : comparison.runs)
    std::printf("%-18s checkpoint %s\n%-18s metrics    %s\n", outcome.name.c_str(), outcome.checkpoint.c_str(), "",
                (out / outcome.name / "metrics.jsonl").c_str());
  std::printf("%-18s %s\n", "all figures", (out / "comparison.json").c_str());
}

void run(CompareCommand& command) {
  apply(command.compute);
  if (!command.compute.dtype.empty()) command.settings.push_back("train.dtype=" + command.compute.dtype);
  catch_interrupts();
  auto runs = open_runs(command);
  const auto comparison = compare_runs(runs, command.minutes, command.quiet || command.json);
  Json result = to_json(comparison);
  for (size_t n = 0; n < runs.size(); ++n) result["runs"][n]["parameters"] = runs[n].trainer->num_parameters();
  const Json samples = comparison.interrupted ? Json::array() : sample_blanks(runs, 3);
  result["samples"] = samples;
  write_file_atomically(std::filesystem::path(command.out) / "comparison.json", result.dump(2) + "\n");
  if (command.json)
    std::cout << result.dump() << "\n";
  else
    print_results(comparison, runs, samples, command.out);
  if (comparison.interrupted) throw CLI::RuntimeError(130);
}

}  // namespace

void add_compare(CLI::App& app) {
  auto command = std::make_shared<CompareCommand>();
  auto* compare = app.add_subcommand("compare", "Train runs side by side on the same data and compare them");
  compare->add_option("runs", command->run_files, "two or more run files with the same [data]")->required();
  compare->add_option("--out", command->out, "folder; each run gets a folder of its name in it")->required();
  compare->add_option("--minutes", command->minutes, "training time over all runs; 0: each run's train.steps")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  compare->add_option("--set", command->settings, "override a key in every run: section.key=value (repeatable)")
      ->allow_extra_args(false);
  compare->add_flag("--resume", command->start.resume, "continue each run from its newest complete checkpoint");
  compare->add_flag("--allow-changes", command->start.allow_changes,
                    "with --resume: go on though settings differ from the checkpoints'");
  compare->add_flag("--json", command->json, "print one JSON object, nothing else");
  compare->add_flag("--quiet", command->quiet, "no progress bar");
  add_compute_options(*compare, command->compute);
  compare->footer("Example: switchyard compare sparse.toml dense.toml --out runs/twins --minutes 6");
  compare->callback([command] { run(*command); });
}

}  // namespace switchyard
