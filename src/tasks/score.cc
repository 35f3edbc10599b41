#include "tasks/score.h"

#include <algorithm>
#include <array>
#include <unordered_set>

#include "base/error.h"
#include "metrics/bleu.h"
#include "metrics/classification.h"
#include "metrics/correlation.h"
#include "metrics/grouped.h"
#include "metrics/question_answering.h"
#include "metrics/rouge.h"
#include "tasks/template.h"
#include "tasks/text_forms.h"
#include "tasks/winograd.h"

namespace switchyard {
namespace {

constexpr double kUnparseable = -1.0;  // an output that should be a number and is none

struct Outputs {
  const Task& task;
  std::span<const TaskExample> examples;
  std::span<const std::string> predictions;
};

struct Classes {
  std::vector<int64_t> targets, predictions;
};

Classes classes_of(const Outputs& outputs) {
  Classes classes;
  for (size_t n = 0; n < outputs.examples.size(); ++n) {
    classes.targets.push_back(outputs.examples[n].target_class);
    classes.predictions.push_back(predicted_class(outputs.task, outputs.examples[n], outputs.predictions[n]));
  }
  return classes;
}

std::vector<std::string> groups_of(const Outputs& outputs) {
  std::vector<std::string> groups;
  for (const auto& example : outputs.examples) groups.push_back(example.group);
  return groups;
}

std::vector<std::vector<std::string>> references_of(const Outputs& outputs) {
  std::vector<std::vector<std::string>> references;
  for (const auto& example : outputs.examples)
    references.push_back(outputs.task.kind == TargetKind::kAnswers ? example.references
                                                                   : std::vector<std::string>{example.targets});
  return references;
}

MetricValues accuracy_value(const Outputs& outputs) {
  const auto [targets, predictions] = classes_of(outputs);
  return {{"accuracy", accuracy(targets, predictions)}};
}

MetricValues f1_value(const Outputs& outputs) {
  const auto [targets, predictions] = classes_of(outputs);
  return {{"f1", binary_f1(targets, predictions)}};
}

MetricValues matthews_value(const Outputs& outputs) {
  const auto [targets, predictions] = classes_of(outputs);
  return {{"matthews_corrcoef", matthews_correlation(targets, predictions)}};
}

MetricValues macro_f1_value(const Outputs& outputs) {
  const auto [targets, predictions] = classes_of(outputs);
  const auto count = outputs.task.labels.size();
  return {{join("mean_", count, "class_f1"), macro_f1(targets, predictions, static_cast<int64_t>(count))}};
}

MetricValues question_exact_match_value(const Outputs& outputs) {
  const auto [targets, predictions] = classes_of(outputs);
  return {{"exact_match", group_exact_match(groups_of(outputs), targets, predictions)}};
}

MetricValues gender_parity_value(const Outputs& outputs) {
  return {{"gender_parity", group_parity(groups_of(outputs), classes_of(outputs).predictions)}};
}

MetricValues correlation_value(const Outputs& outputs, const char* name,
                               double (*correlation)(std::span<const double>, std::span<const double>)) {
  std::vector<double> targets, predictions;
  for (size_t n = 0; n < outputs.examples.size(); ++n) {
    targets.push_back(parse_number(outputs.examples[n].targets, kUnparseable));
    predictions.push_back(parse_number(outputs.predictions[n], kUnparseable));
  }
  return {{name, correlation(targets, predictions)}};
}

MetricValues pearson_value(const Outputs& outputs) {
  return correlation_value(outputs, "pearson_corrcoef", pearson_correlation);
}

MetricValues spearman_value(const Outputs& outputs) {
  return correlation_value(outputs, "spearman_corrcoef", spearman_correlation);
}

MetricValues squad_value(const Outputs& outputs) {
  const auto score = score_answers(references_of(outputs), outputs.predictions, AnswerForm::kSquad);
  return {{"em", score.exact_match}, {"f1", score.f1}};
}

MetricValues trivia_qa_value(const Outputs& outputs) {
  const auto score = score_answers(references_of(outputs), outputs.predictions, AnswerForm::kTriviaQa);
  return {{"em", score.exact_match}, {"f1", score.f1}};
}

// A question has a row for each of its answers, and counts once.
MetricValues record_value(const Outputs& outputs) {
  std::unordered_set<std::string> seen;
  std::vector<std::vector<std::string>> references;
  std::vector<std::string> predictions;
  for (size_t n = 0; n < outputs.examples.size(); ++n) {
    if (!seen.insert(outputs.examples[n].group).second) continue;
    references.push_back(outputs.examples[n].references);
    predictions.push_back(outputs.predictions[n]);
  }
  const auto score = score_answers(references, predictions, AnswerForm::kSquad);
  return {{"em", score.exact_match}, {"f1", score.f1}};
}

MetricValues rouge_value(const Outputs& outputs) {
  const auto score = score_summaries(references_of(outputs), outputs.predictions, {});
  return {
      {"rouge1", score.rouge1}, {"rouge2", score.rouge2}, {"rougeL", score.rouge_l}, {"rougeLsum", score.rouge_lsum}};
}

MetricValues bleu_value(const Outputs& outputs) {
  const auto references = references_of(outputs);
  return {{"bleu", corpus_bleu(references, outputs.predictions, BleuTokens::k13a)},
          {"bleu_intl", corpus_bleu(references, outputs.predictions, BleuTokens::kInternational)}};
}

MetricValues sequence_accuracy_value(const Outputs& outputs) {
  int64_t equal = 0;
  for (size_t n = 0; n < outputs.examples.size(); ++n)
    equal += outputs.examples[n].targets == outputs.predictions[n] ? 1 : 0;
  return {{"sequence_accuracy", 100.0 * static_cast<double>(equal) / static_cast<double>(outputs.examples.size())}};
}

bool names_classes(const Task& task) {
  return task.kind == TargetKind::kLabel || task.kind == TargetKind::kChoice || task.kind == TargetKind::kReferent;
}
bool has_labels(const Task& task) { return task.kind == TargetKind::kLabel; }
bool has_two_labels(const Task& task) { return has_labels(task) && task.labels.size() == 2; }
bool has_questions(const Task& task) { return has_labels(task) && task.rows == "multirc"; }
bool has_pairs(const Task& task) { return has_labels(task) && task.rows == "pairs"; }
bool is_number(const Task& task) { return task.kind == TargetKind::kNumber; }
bool has_answers(const Task& task) { return task.kind == TargetKind::kAnswers; }
bool has_queries(const Task& task) { return has_answers(task) && task.rows == "record"; }
bool is_text(const Task& task) { return has_answers(task) || task.kind == TargetKind::kText; }
bool is_any(const Task&) { return true; }

struct Metric {
  const char* name;
  MetricValues (*value)(const Outputs&);
  bool (*fits)(const Task&);
  const char* needs;
};
constexpr std::array<Metric, 14> kMetrics = {
    {{"accuracy", accuracy_value, names_classes, "labels or choices"},
     {"f1", f1_value, has_two_labels, "two labels"},
     {"matthews_corrcoef", matthews_value, has_labels, "labels"},
     {"mean_multiclass_f1", macro_f1_value, has_labels, "labels"},
     {"question_exact_match", question_exact_match_value, has_questions, "rows = \"multirc\""},
     {"gender_parity", gender_parity_value, has_pairs, "labels and rows = \"pairs\""},
     {"pearson_corrcoef", pearson_value, is_number, "a number as target"},
     {"spearman_corrcoef", spearman_value, is_number, "a number as target"},
     {"squad", squad_value, has_answers, "answers"},
     {"trivia_qa", trivia_qa_value, has_answers, "answers"},
     {"record", record_value, has_queries, "rows = \"record\""},
     {"rouge", rouge_value, is_text, "targets or answers"},
     {"bleu", bleu_value, is_text, "targets or answers"},
     {"sequence_accuracy", sequence_accuracy_value, is_any, ""}}};

const Metric* find_metric(std::string_view name) {
  const auto found =
      std::find_if(kMetrics.begin(), kMetrics.end(), [&](const auto& metric) { return name == metric.name; });
  return found == kMetrics.end() ? nullptr : found;
}

}  // namespace

int64_t predicted_class(const Task& task, const TaskExample& example, const std::string& prediction) {
  if (task.kind == TargetKind::kReferent) return names_referent(prediction, example.targets);
  const auto& texts = task.kind == TargetKind::kLabel ? task.labels : example.references;
  const auto found = std::find(texts.begin(), texts.end(), prediction);
  return found == texts.end() ? -1 : found - texts.begin();
}

MetricValues score(const Task& task, std::span<const TaskExample> examples, std::span<const std::string> predictions) {
  SY_CHECK(examples.size() == predictions.size() && !examples.empty(), task.name, ": ", predictions.size(),
           " predictions for ", examples.size(), " examples");
  MetricValues values;
  for (const auto& name : task.metrics) {
    const auto found = find_metric(name)->value({task, examples, predictions});
    values.insert(values.end(), found.begin(), found.end());
  }
  return values;
}

std::vector<std::string> metric_names() {
  std::vector<std::string> names;
  for (const auto& metric : kMetrics) names.emplace_back(metric.name);
  return names;
}

void check_metric(const std::string& name, const Task& task) {
  const auto* metric = find_metric(name);
  SY_CHECK(metric != nullptr, task.source, ": no metric \"", name, "\"", nearest_hint(name, metric_names()),
           "; known: ", join_names(metric_names()));
  SY_CHECK(metric->fits(task), task.source, ": the metric ", name, " needs ", metric->needs);
}

double mean_of(const MetricValues& values) {
  double sum = 0;
  for (const auto& [unused, value] : values) sum += value;
  return sum / static_cast<double>(values.size());
}

}  // namespace switchyard
