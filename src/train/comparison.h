// Runs trained side by side, so that one table can say which learns more: at equal steps and at equal time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "train/trainer.h"

namespace switchyard {

struct ComparedRun {
  std::string name;
  std::unique_ptr<Trainer> trainer;
};

struct RunOutcome {
  struct Point {
    int64_t step;
    double seconds;  // of training, evaluation and saving left out
    double loss;     // held-out, nats per target token
  };
  std::string name;
  std::vector<Point> curve;
  int64_t steps = 0;
  double seconds = 0.0;
  double tokens_per_second = 0.0;  // over the whole run
  double dropped_fraction = 0.0;   // mean over sparse layers at the last step
  std::string checkpoint;
};

struct Comparison {
  std::vector<RunOutcome> runs;
  int64_t equal_step = 0;      // the last step at which every run was evaluated
  double equal_seconds = 0.0;  // training time that every run had
  bool interrupted = false;
};

// Advances whichever run has had the least training time, one step at a time, until each has had `minutes / runs`
// minutes or (minutes = 0) train.steps steps. Each run is evaluated every train.eval_every steps, saved every
// train.save_every steps and where it is the best so far, and both at its end. A resumed run has the time that its log
// says.
Comparison compare_runs(std::vector<ComparedRun>& runs, double minutes, bool quiet);

// Held-out loss of a run at a step where it was evaluated, and at a training time, interpolated between evaluations.
double loss_at_step(const RunOutcome& run, int64_t step);
double loss_at_time(const RunOutcome& run, double seconds);

Json to_json(const Comparison& comparison);

}  // namespace switchyard
