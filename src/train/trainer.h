// One training run: weights, optimiser, data position and the files it leaves under its folder.
#pragma once

#include <filesystem>
#include <memory>

#include "base/config.h"
#include "model/loss.h"
#include "optim/optimizer.h"
#include "text/vocabulary.h"
#include "train/run_config.h"

namespace switchyard {

// What the optimiser gets: every parameter but buffers under its name, routers with their own share of the rate.
std::vector<OptimizedParameter> optimized_parameters(const std::vector<NamedParameter>& parameters,
                                                     const OptimizerConfig& config);

class Trainer {
 public:
  // Starts a new run in `out`, or with `resume` continues from its newest complete checkpoint (from the start if there
  // is none): from there on every line of metrics.jsonl equals the uninterrupted run's, timing fields aside. Throws
  // Error if the text, vocabulary, initial model or folder do not fit, and if `out` holds a run and resume is false.
  Trainer(const RunConfig& run, const std::filesystem::path& out, bool resume);
  ~Trainer();

  const RunConfig& run() const;
  const std::filesystem::path& folder() const;
  int64_t step() const;             // updates done
  int64_t tokens_per_step() const;  // encoder and decoder positions
  int64_t num_parameters() const;

  // One optimiser update. Returns the step's metrics (design.md, "train writes under DIR") and writes them if it is a
  // step that logs. A loss or gradient that is not finite saves the state before the update and throws Error naming
  // step and parameter.
  Json train_step();

  // Held-out loss; also appended to metrics.jsonl. Null if the run has no eval_text.
  Json evaluate();

  // Checkpoint of the current step; returns its folder.
  std::filesystem::path save();

  const ModelWeights& weights() const;
  const Vocabulary& vocabulary() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Mean over sparse layers of a step's dropped_fraction, 0 in a dense model. `metrics` as train_step() returns them.
double mean_dropped_fraction(const Json& metrics);

// Runs to the last step with a progress bar, evaluating and saving on schedule, at the end and on Ctrl-C.
// Returns false if it was interrupted.
bool run_training(Trainer& trainer, bool quiet);

}  // namespace switchyard
