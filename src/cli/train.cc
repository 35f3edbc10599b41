// switchyard train: pre-train a model from a run file.
#include <ATen/Parallel.h>

#include <iostream>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/messages.h"
#include "cli/commands.h"
#include "cli/compute_options.h"
#include "train/ranks.h"
#include "train/trainer.h"

namespace switchyard {
namespace {

struct TrainCommand {
  std::string run_file, out;
  std::vector<std::string> settings;
  ResumeOptions start;
  bool quiet = false, json = false;
  ComputeOptions compute;
};

void run(TrainCommand& command) {
  SY_CHECK(!command.run_file.empty(), "train needs a run file, for example: switchyard train run.toml --out runs/mini");
  SY_CHECK(!command.out.empty(), "train needs --out DIR, the folder of the run");
  apply(command.compute);
  if (!command.compute.dtype.empty()) command.settings.push_back("train.dtype=" + command.compute.dtype);
  auto start = command.start;
  start.resume = start.resume || is_restart();
  const auto config = read_run(command.run_file, command.settings, start.checkpoint(command.out));
  catch_interrupts();
  const auto mesh = open_mesh(config, device_of(command.compute));
  if (!mesh->is_first()) set_message_sink(std::make_shared<NoMessages>());
  Trainer trainer(config, command.out, start, device_of(command.compute), *mesh);
  const bool finished = run_training(trainer, command.quiet || command.json || !mesh->is_first());
  if (command.json && mesh->is_first())
    std::cout << Json{{"out", command.out}, {"step", trainer.step()}, {"finished", finished}}.dump() << "\n";
  if (!finished) throw CLI::RuntimeError(130);
}

}  // namespace

void add_train(CLI::App& app) {
  auto command = std::make_shared<TrainCommand>();
  auto* train = app.add_subcommand("train", "Pre-train a model from a run file");
  train->add_option("run", command->run_file, "run file (TOML)");
  train->add_option("--out", command->out, "folder of the run: metrics, checkpoints, event files");
  train->add_option("--set", command->settings, "override a key: section.key=value (repeatable)")
      ->allow_extra_args(false);
  train->add_flag("--resume", command->start.resume, "continue from the newest complete checkpoint in --out");
  train->add_flag("--allow-changes", command->start.allow_changes,
                  "with --resume: go on though settings differ from the checkpoint's");
  train->add_flag("--quiet", command->quiet, "no progress bar");
  train->add_flag("--json", command->json, "print one JSON object at the end, nothing else");
  train->add_flag_callback(
      "--help-config",
      [] {
        std::cout << describe_run_config();
        throw CLI::Success();
      },
      "list every key of a run file");
  add_compute_options(*train, command->compute);
  train->footer(
      "Examples:\n  switchyard train run.toml --out runs/mini --set train.steps=500\n"
      "  switchyard train run.toml --out runs/mini --resume");
  train->callback([command] { run(*command); });
}

}  // namespace switchyard
