#include "train/distillation.h"

#include <cstdio>

#include "checkpoint/model_directory.h"
#include "train/run_summary.h"

namespace switchyard {
namespace {

int64_t count_parameters(const ModelConfig& config) {
  int64_t count = 0;
  for (const auto& spec : parameter_specs(config)) count += spec.is_buffer() ? 0 : spec.numel();
  return count;
}

std::optional<double> measure(const Trainer& trainer, const std::string& model) {
  const auto opened =
      open_for_inference(resolve_model_folder(model), compute_dtype(trainer.run()), trainer.weights().shared.device());
  return find_number(trainer.evaluate(opened.config, opened.weights), trainer.run().train.best_metric);
}

std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %%", 100.0 * share);
  return text;
}

std::string number(const std::optional<double>& value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4f", value.value_or(0.0));
  return value ? text : "unknown";
}

}  // namespace

double DistillationReport::compression() const {
  return 1.0 - static_cast<double>(student_parameters) / static_cast<double>(teacher_parameters);
}

std::optional<double> DistillationReport::gain_kept() const {
  if (!student || !teacher || !baseline || *teacher == *baseline) return std::nullopt;
  return (*student - *baseline) / (*teacher - *baseline);
}

DistillationReport report_distillation(Trainer& trainer) {
  const auto& run = trainer.run();
  DistillationReport report{
      .student_parameters = count_parameters(run.model),
      .teacher_parameters = count_parameters(open_config(resolve_model_folder(run.distill.teacher))),
      .metric = run.train.best_metric,
      .student = find_number(trainer.evaluate(), run.train.best_metric)};
  if (!report.student) return report;
  report.teacher = measure(trainer, run.distill.teacher);
  if (!run.distill.baseline.empty()) report.baseline = measure(trainer, run.distill.baseline);
  return report;
}

Json to_json(const DistillationReport& report) {
  Json json{{"student_parameters", report.student_parameters},
            {"teacher_parameters", report.teacher_parameters},
            {"compression", report.compression()},
            {"metric", report.metric}};
  const auto add = [&](const char* name, const std::optional<double>& value) {
    if (value) json[name] = *value;
  };
  add("student", report.student);
  add("teacher", report.teacher);
  add("baseline", report.baseline);
  add("gain_kept", report.gain_kept());
  return json;
}

std::vector<std::string> describe(const DistillationReport& report) {
  std::vector<std::string> lines = {join("student     ", short_count(static_cast<double>(report.student_parameters)),
                                         " of the teacher's ",
                                         short_count(static_cast<double>(report.teacher_parameters)),
                                         " parameters: compressed by ", percent(report.compression()))};
  if (!report.student) return lines;
  std::string line = join(report.metric, std::string(report.metric.size() < 12 ? 12 - report.metric.size() : 1, ' '));
  if (report.baseline) line += "baseline " + number(report.baseline) + ", ";
  line += "student " + number(report.student) + ", teacher " + number(report.teacher);
  if (const auto kept = report.gain_kept()) line += ": " + percent(*kept) + " of the teacher's gain kept";
  lines.push_back(line);
  return lines;
}

}  // namespace switchyard
