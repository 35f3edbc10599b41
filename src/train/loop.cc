// The loop of `switchyard train`: steps, evaluations and checkpoints on schedule.
#include <cstdio>

#include "base/clock.h"
#include "base/progress.h"
#include "train/run_summary.h"
#include "train/trainer.h"

namespace switchyard {
namespace {

bool is_due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

std::string describe(const StepResult& result, std::optional<double> best_metric) {
  char text[128];
  std::snprintf(text, sizeof text, "loss %.3f  %.0f tok/s", result.cross_entropy,
                static_cast<double>(result.tokens) / result.seconds);
  std::string line = text;
  if (!result.layers.empty()) {
    std::snprintf(text, sizeof text, "  dropped %.1f%%", 100.0 * mean_dropped_fraction(result));
    line += text;
  }
  if (best_metric) {
    std::snprintf(text, sizeof text, "  held-out %.4f", *best_metric);
    line += text;
  }
  return line;
}

}  // namespace

StepResult advance(Trainer& trainer) {
  const auto& train = trainer.run().train;
  const StepResult result = trainer.train_step();
  const int64_t step = trainer.step();
  if (step == train.steps || is_due(step, train.eval_every)) trainer.evaluate();
  if (trainer.is_done() || is_due(step, train.save_every) || trainer.has_new_best()) trainer.save();
  return result;
}

bool run_training(Trainer& trainer, bool quiet) {
  const auto& train = trainer.run().train;
  const double start = steady_seconds();
  const int64_t first_step = trainer.step();
  if (!quiet)
    for (const auto& line : describe_start(trainer)) say(line);
  Progress progress({.name = "train", .unit = "steps", .quiet = quiet, .after_seconds = 0},
                    static_cast<double>(train.steps));
  std::optional<double> best_metric;
  while (!trainer.is_done() && !trainer.is_interrupted()) {
    const StepResult result = advance(trainer);
    if (!trainer.evaluation().empty()) best_metric = find_number(trainer.evaluation(), train.best_metric);
    progress.update(static_cast<double>(trainer.step()), describe(result, best_metric));
  }
  if (!trainer.checkpoint()) trainer.save();
  progress.finish();
  if (!quiet)
    for (const auto& line : describe_end(trainer, first_step, steady_seconds() - start)) say(line);
  return trainer.is_done();
}

}  // namespace switchyard
