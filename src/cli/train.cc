// switchyard train and switchyard distill: train a model from a run file, alone or beside a teacher.
#include <iostream>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/messages.h"
#include "cli/commands.h"
#include "cli/compute_options.h"
#include "train/distillation.h"
#include "train/ranks.h"
#include "train/trainer.h"

namespace switchyard {
namespace {

struct TrainCommand {
  explicit TrainCommand(std::string command) : name(std::move(command)) {}

  std::string name;
  std::string run_file, out, teacher;
  int64_t cache_teacher = 0;
  std::vector<std::string> settings;
  ResumeOptions start;
  bool quiet = false, json = false, resolve = false;
  ComputeOptions compute;
};

void run(TrainCommand& command) {
  SY_CHECK(!command.run_file.empty(), command.name, " needs a run file, for example: switchyard ", command.name,
           " run.toml --out runs/mini");
  SY_CHECK(command.resolve || !command.out.empty(), command.name, " needs --out DIR, the folder of the run");
  apply(command.compute);
  if (!command.compute.dtype.empty()) command.settings.push_back("train.dtype=" + command.compute.dtype);
  if (!command.teacher.empty())
    command.settings.push_back("distill.teacher=" +
                               Json(std::filesystem::absolute(command.teacher).lexically_normal().string()).dump());
  if (command.cache_teacher != 0) command.settings.push_back(join("distill.cache_top_k=", command.cache_teacher));
  auto start = command.start;
  start.resume = start.resume || is_restart();
  const auto config = read_run(command.run_file, command.settings, start.checkpoint(command.out));
  SY_CHECK(command.name != "distill" || !config.distill.teacher.empty(),
           "distill needs --teacher MODEL, or teacher under [distill] in the run file");
  if (command.resolve) {
    std::cout << run_to_toml(config);
    return;
  }
  catch_interrupts();
  const auto mesh = open_mesh(config, device_of(command.compute));
  if (!mesh->is_first()) set_message_sink(std::make_shared<NoMessages>());
  Trainer trainer(config, command.out, start, device_of(command.compute), *mesh);
  const bool quiet = command.quiet || command.json || !mesh->is_first();
  const bool finished = run_training(trainer, quiet);
  Json result{{"out", command.out}, {"step", trainer.step()}, {"finished", finished}};
  if (finished && !config.distill.teacher.empty()) {
    const auto report = report_distillation(trainer);
    if (!quiet)
      for (const auto& line : describe(report)) say(line);
    result.update(to_json(report));
  }
  if (command.json && mesh->is_first()) std::cout << result.dump() << "\n";
  if (!finished) throw CLI::RuntimeError(130);
}

CLI::App* add_command(CLI::App& app, const std::shared_ptr<TrainCommand>& command, const std::string& description) {
  auto* train = app.add_subcommand(command->name, description);
  train->add_option("run", command->run_file, "run file (TOML)");
  train->add_option("--out", command->out, "folder of the run: metrics, checkpoints, event files");
  train->add_option("--set", command->settings, "override a key: section.key=value (repeatable)")
      ->allow_extra_args(false);
  train->add_flag("--resume", command->start.resume, "continue from the newest complete checkpoint in --out");
  train->add_flag("--allow-changes", command->start.allow_changes,
                  "with --resume: go on though settings differ from the checkpoint's");
  train->add_flag("--resolve", command->resolve,
                  "print the run with all its keys and stop; nothing is opened but init");
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
  train->callback([command] { run(*command); });
  return train;
}

}  // namespace

void add_train(CLI::App& app) {
  const auto command = std::make_shared<TrainCommand>("train");
  add_command(app, command, "Train a model from a run file: pre-training, a task, or a mixture")
      ->footer(
          "Examples:\n  switchyard train run.toml --out runs/mini --set train.steps=500\n"
          "  switchyard train run.toml --out runs/mini --resume");
}

void add_distill(CLI::App& app) {
  const auto command = std::make_shared<TrainCommand>("distill");
  auto* distill = add_command(app, command, "Train a small model beside a larger one that teaches it");
  distill->add_option("--teacher", command->teacher,
                      "model directory or run that teaches; without [model] preset or init its dense twin is trained");
  distill->add_option("--cache-teacher", command->cache_teacher,
                      "write the teacher's likeliest answers to each token once, so many, and learn from these");
  distill->footer(
      "Example:\n  switchyard distill run.toml --teacher runs/sparse@best --out runs/student\n"
      "The run file is that of `switchyard train`, with [distill] for the teacher's weight and temperature.");
}

}  // namespace switchyard
