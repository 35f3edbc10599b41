// The numbers that a table of runs shows.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "report/run_log.h"

namespace switchyard {

struct RunSummary {
  double steps = 0.0, seconds = 0.0;
  std::optional<double> tokens_per_second;  // median over logged steps
  std::optional<double> train_loss;         // cross entropy, mean of the last twentieth of the log
  std::optional<double> final_eval_loss, best_eval_loss;
  std::optional<double> dropped_fraction;  // mean over sparse layers and the last twentieth
};

RunSummary summarize(const RunLog& run);

// The runs beside each other: held-out loss at the last step and at the longest training time that all of them reached,
// and when each first had the loss that all of them reached. Values between two evaluations are interpolated.
struct EqualTerms {
  double step = 0.0, seconds = 0.0, loss = 0.0;
  struct Row {
    double loss_at_step = 0.0, loss_at_seconds = 0.0;
    double steps_to_loss = 0.0, seconds_to_loss = 0.0;
  };
  std::vector<Row> rows;  // [runs]
};

// Nothing if there are fewer than two runs, or one has fewer than two evaluations.
std::optional<EqualTerms> compare_on_equal_terms(const std::vector<RunLog>& runs);

// A held-out text of several (eval_loss_NAME: a language, say) in sparse runs beside dense ones. Curves are means over
// the runs of a kind at the steps where all runs were evaluated.
struct PartComparison {
  std::string name;
  double dense_loss = 0.0, sparse_loss = 0.0;    // at the last of these steps
  double dense_steps = 0.0, sparse_steps = 0.0;  // when each first had the loss that both had
  double improvement() const { return dense_loss - sparse_loss; }
  double speed_up() const { return dense_steps / sparse_steps; }
};

// By falling improvement. Empty where there are not both kinds of runs (of model.num_experts in their run.toml), or
// they have fewer than two such texts or evaluations in common.
std::vector<PartComparison> compare_parts(const std::vector<RunLog>& runs);

}  // namespace switchyard
