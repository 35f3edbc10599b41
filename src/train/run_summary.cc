#include "train/run_summary.h"

#include <ATen/Parallel.h>

#include <cstdio>

#include "base/progress.h"

namespace switchyard {
namespace {

std::string fixed(double value, int digits) {
  char text[32];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string model_line(const Trainer& trainer) {
  const auto& run = trainer.run();
  const std::string name = !run.preset.empty() ? run.preset
                           : !run.init.empty() ? run.init
                                               : join("d_model ", run.model.d_model);
  return join(
      "model       ", name, ", ", short_count(static_cast<double>(trainer.num_parameters())), " parameters",
      run.model.has_sparse_layers() ? join(", ", run.model.routing.num_experts, " experts a sparse layer") : "");
}

std::string data_line(const Trainer& trainer) {
  const auto shape = trainer.examples().shape();
  const auto tokens = static_cast<double>(shape.positions());
  const int64_t epoch = trainer.examples().examples_per_epoch();
  const std::string step = join(short_count(tokens), " tokens a step (", shape.batch_size, " x ", shape.encoder_length,
                                " + ", shape.decoder_length, ")");
  if (trainer.run().data.pack) return "data        " + step + ", examples packed";
  if (epoch == 0) return "data        " + step;
  const double steps = static_cast<double>(epoch) / static_cast<double>(shape.batch_size);
  return join("data        ", short_count(tokens * steps), " tokens an epoch, ", step);
}

std::string compute_line(const Trainer& trainer) {
  const int threads = at::get_num_threads();
  const auto& layout = trainer.mesh().layout();
  const std::string ranks = layout.num_ranks() == 1
                                ? ""
                                : join(layout.num_ranks(), " ranks (data ", layout.data, " x expert ", layout.expert,
                                       " x tensor ", layout.tensor, "), each ");
  return join("compute     ", trainer.run().train.dtype, ", ", ranks, threads,
              threads == 1 ? " thread, " : " threads, ", short_count(trainer.product_rate()), "FLOP/s in products");
}

}  // namespace

std::string short_count(double count) {
  const char* units[] = {"", " k", " M", " G", " T", " P"};
  size_t unit = 0;
  for (; count >= 1000.0 && unit + 1 < std::size(units); ++unit) count /= 1000.0;
  char text[32];
  std::snprintf(text, sizeof text,
                unit == 0     ? "%.0f%s"
                : count < 10  ? "%.2f%s"
                : count < 100 ? "%.1f%s"
                              : "%.0f%s",
                count, units[unit]);
  return text;
}

std::vector<std::string> describe_start(const Trainer& trainer) {
  const auto& train = trainer.run().train;
  return {model_line(trainer), data_line(trainer), compute_line(trainer),
          join("folder      ", trainer.folder().string(), ", steps ", trainer.step(), " to ", train.steps)};
}

std::vector<std::string> describe_end(const Trainer& trainer, int64_t first_step, double seconds) {
  const int64_t steps = trainer.step() - first_step;
  const double tokens = static_cast<double>(steps * trainer.examples().shape().positions());
  std::vector<std::string> lines = {join("trained     ", steps, steps == 1 ? " step in " : " steps in ",
                                         format_duration(seconds), ", ",
                                         short_count(seconds > 0 ? tokens / seconds : 0.0),
                                         " tokens/s with evaluations, ", fixed(trainer.epochs(), 2), " epochs so far")};
  const auto& name = trainer.run().train.best_metric;
  const auto last = find_number(trainer.evaluation(), name);
  const auto best = trainer.best();
  if (last || best)
    lines.push_back(join(name, std::string(name.size() < 12 ? 12 - name.size() : 1, ' '),
                         last ? fixed(*last, 4) + join(" at step ", trainer.step()) : "", last && best ? ", " : "",
                         best ? join("best ", fixed(best->value, 4), " at step ", best->step) : ""));
  if (const auto& saved = trainer.checkpoint()) lines.push_back("checkpoint  " + saved->string());
  return lines;
}

}  // namespace switchyard
