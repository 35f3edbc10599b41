// Outputs against a task's examples: T5's post-processing and its names of metrics.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tasks/examples.h"
#include "tasks/task.h"

namespace switchyard {

// Names and values in the task's order, percentages. A correlation is NaN where it is not defined.
using MetricValues = std::vector<std::pair<std::string, double>>;

// predictions[n] belongs to examples[n]. Throws Error if their numbers differ or there is none.
MetricValues score(const Task& task, std::span<const TaskExample> examples, std::span<const std::string> predictions);

// The class that an output names: of kLabel and kChoice the text must be a class's exactly (-1: none), of kReferent 1
// if it names the referent.
int64_t predicted_class(const Task& task, const TaskExample& example, const std::string& prediction);

// What `metrics` of a task may list:
//   accuracy, f1 (of the second of two labels), matthews_corrcoef, mean_multiclass_f1 (reported as mean_3class_f1 with
//   three labels), question_exact_match (exact_match), gender_parity; pearson_corrcoef, spearman_corrcoef; squad and
//   trivia_qa (em, f1), record (the same, once a group); rouge (rouge1, rouge2, rougeL, rougeLsum), bleu (bleu with
//   tokens 13a, bleu_intl with T5's), sequence_accuracy.
std::vector<std::string> metric_names();

// Throws Error if there is no such metric, or it does not fit what the task's targets are.
void check_metric(const std::string& metric, const Task& task);

// The mean of a task's numbers, as averages over tasks take it.
double mean_of(const MetricValues& values);

}  // namespace switchyard
