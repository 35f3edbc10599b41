// The loop of `switchyard train`: steps, evaluations and checkpoints on schedule.
#include <cstdio>

#include "base/interrupt.h"
#include "base/progress.h"
#include "train/trainer.h"

namespace switchyard {
namespace {

bool is_due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

std::string describe(const StepResult& result, double eval_loss) {
  char text[128];
  std::snprintf(text, sizeof text, "loss %.3f  %.0f tok/s", result.cross_entropy,
                static_cast<double>(result.tokens) / result.seconds);
  std::string line = text;
  if (!result.layers.empty()) {
    std::snprintf(text, sizeof text, "  dropped %.1f%%", 100.0 * mean_dropped_fraction(result));
    line += text;
  }
  if (eval_loss > 0) {
    std::snprintf(text, sizeof text, "  held-out %.4f", eval_loss);
    line += text;
  }
  return line;
}

}  // namespace

bool run_training(Trainer& trainer, bool quiet) {
  const auto& train = trainer.run().train;
  Progress progress({.name = "train", .unit = "steps", .quiet = quiet, .after_seconds = 0}, static_cast<double>(train.steps));
  double eval_loss = 0.0;
  bool saved = trainer.step() > 0;
  while (trainer.step() < train.steps && !interrupted()) {
    const StepResult result = trainer.train_step();
    const int64_t step = trainer.step();
    const bool last = step == train.steps;
    if (last || is_due(step, train.eval_every)) {
      const Json line = trainer.evaluate();
      if (!line.is_null()) eval_loss = line.at("eval_loss").get<double>();
    }
    saved = last || is_due(step, train.save_every);
    if (saved) trainer.save();
    progress.update(static_cast<double>(step), describe(result, eval_loss));
  }
  if (!saved) trainer.save();
  progress.finish();
  return trainer.step() >= train.steps;
}

}  // namespace switchyard
