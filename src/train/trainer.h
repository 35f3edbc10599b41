// One training run: batches into a learner, results into the run's folder.
#pragma once

#include <filesystem>
#include <memory>

#include "base/config.h"
#include "text/vocabulary.h"
#include "train/run_config.h"
#include "train/step.h"

namespace switchyard {

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

  // One optimiser update; logged if it is a step that logs. If its loss or a gradient is not finite, saves the state
  // before the update and throws Error naming step and parameter.
  StepResult train_step();

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

// Runs to the last step with a progress bar, evaluating and saving on schedule, at the end and on Ctrl-C.
// Returns false if it was interrupted.
bool run_training(Trainer& trainer, bool quiet);

}  // namespace switchyard
