// One training run: batches into a learner, results into the run's folder.
#pragma once

#include <filesystem>
#include <memory>

#include "base/json.h"
#include "base/named_number.h"
#include "checkpoint/checkpoint_store.h"
#include "data/example_source.h"
#include "text/vocabulary.h"
#include "train/run_config.h"
#include "train/step.h"

namespace switchyard {

// Of a run whose train.dtype is resolved.
at::ScalarType compute_dtype(const RunConfig& run);

struct ResumeOptions {
  bool resume = false;
  bool allow_changes = false;  // settings that differ from the checkpoint's are said, not refused

  // The checkpoint that a run in `out` goes on from; none where it begins.
  std::optional<std::filesystem::path> checkpoint(const std::filesystem::path& out) const {
    return resume ? CheckpointStore(out).newest_complete() : std::nullopt;
  }
};

class Trainer {
 public:
  // Starts a new run in `out`, or with `resume` continues from its newest complete checkpoint (from the start if there
  // is none): from there on every line of metrics.jsonl equals the uninterrupted run's, timing fields aside. Throws
  // Error if the text, vocabulary, initial model or folder do not fit, if another process trains in `out`, if it holds
  // a run that is not resumed, and for settings that differ from those of the checkpoint, naming each.
  Trainer(const RunConfig& run, const std::filesystem::path& out, const ResumeOptions& options = {},
          at::Device device = at::kCPU);
  // The same on all ranks of a mesh, which outlives the trainer: the first one has the folder, each computes its part
  // of every step. All ranks call every function that computes or saves, in the same order.
  Trainer(const RunConfig& run, const std::filesystem::path& out, const ResumeOptions& options, at::Device device,
          const Mesh& mesh);
  ~Trainer();

  const RunConfig& run() const;
  const std::filesystem::path& folder() const;
  int64_t step() const;             // updates done
  double epochs() const;            // how often the training examples have been seen; 0 where they have no end
  int64_t tokens_per_step() const;  // encoder and decoder positions
  int64_t num_parameters() const;
  double product_rate() const;  // FLOP/s of a large product in the run's type, measured at the start
  const ExampleSource& examples() const;
  const std::vector<NamedNumber>& evaluation() const;  // of this step; empty if it was not evaluated
  std::optional<BestCheckpoint> best() const;          // none on ranks without the folder
  const Mesh& mesh() const;
  const std::optional<std::filesystem::path>& checkpoint() const;  // of this step, if it was saved

  // One optimiser update; logged if it is a step that logs. If its loss or a gradient is not finite, saves the state
  // before the update and throws Error naming step and parameter.
  StepResult train_step();

  Json metrics_of(const StepResult& result) const;  // the step's line of metrics.jsonl

  // What the run's evaluators say of this step, once a step; also appended to metrics.jsonl. Empty if it has none.
  // Throws Error if train.best_metric was set to what none of them gives.
  const std::vector<NamedNumber>& evaluate();

  // The same of any other model, such as the teacher; nothing is kept.
  std::vector<NamedNumber> evaluate(const ModelConfig& config, const ComputeWeights& weights) const;

  // Whether the run is over: at its last step, or after train.early_stopping_patience evaluations without a gain.
  bool is_done() const;

  // Whether this step's evaluation is better than that of every checkpoint, and the run keeps the best.
  bool has_new_best() const;

  // Whether Ctrl-C was pressed, on any rank.
  bool is_interrupted() const;

  // Checkpoint of the current step; returns its folder. Nothing is written anew if it is there with all that is known.
  std::filesystem::path save();

  const ModelWeights& weights() const;
  const Vocabulary& vocabulary() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// One step, with the evaluation and the checkpoint that are due after it.
StepResult advance(Trainer& trainer);

// Runs until it is done with a progress bar, evaluating and saving on schedule, at the end and on Ctrl-C.
// Returns false if it was interrupted.
bool run_training(Trainer& trainer, bool quiet);

}  // namespace switchyard
