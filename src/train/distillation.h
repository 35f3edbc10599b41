// What a distilled model is worth: how much smaller than its teacher it is, and how much of the teacher's gain it kept
// (Switch table 6).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "train/trainer.h"

namespace switchyard {

struct DistillationReport {
  int64_t student_parameters = 0, teacher_parameters = 0;
  std::string metric;  // train.best_metric, by which the three are measured, each on the run's own evaluation
  std::optional<double> student = {}, teacher = {};
  std::optional<double> baseline = {};  // of distill.baseline, a model of the student's size that had no teacher

  double compression() const;               // share of the teacher's parameters that the student does without
  std::optional<double> gain_kept() const;  // (student - baseline) / (teacher - baseline)
};

// Evaluates the run's student as it is now, its teacher and its baseline.
DistillationReport report_distillation(Trainer& trainer);

Json to_json(const DistillationReport& report);
std::vector<std::string> describe(const DistillationReport& report);

}  // namespace switchyard
