#include "tasks/task.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/files.h"
#include "tasks/builtin.h"
#include "tasks/row_forms.h"
#include "tasks/score.h"
#include "tasks/template.h"

namespace switchyard {
namespace {

std::vector<std::string> list_of_texts(const Json& value, const std::string& place) {
  if (value.is_string()) return {value.get<std::string>()};
  std::vector<std::string> texts;
  config_detail::read_value(value, place, texts);
  return texts;
}

void read_lists(const ConfigDocument& document, const std::string& section,
                std::map<std::string, std::vector<std::string>>& out) {
  if (!document.sections.contains(section)) return;
  for (const auto& [key, value] : document.sections.at(section).items())
    out[key] = list_of_texts(value, document.place(section + "." + key));
}

void read_fields(Task& task, const ConfigDocument& document) {
  const Json& values = document.sections.at("task");
  const auto known = field_names<Task>();
  for (const auto& [key, value] : values.items())
    SY_CHECK(std::find(known.begin(), known.end(), key) != known.end(), document.place("task." + key),
             ": a task has no such key", nearest_hint(key, known));
  Task::visit(task, [&](const char* name, auto& field, const char*) {
    if (values.contains(name))
      config_detail::read_value(values.at(name), document.place("task." + std::string(name)), field);
  });
}

TargetKind kind_of(const Task& task) {
  const std::string place = task.source + ": ";
  if (task.rows == "wsc" || task.rows == "wnli") return TargetKind::kReferent;
  if (task.rows == "choices" || task.rows == "dpr") return TargetKind::kChoice;
  const int ways = (task.labels.empty() ? 0 : 1) + (task.answers.empty() ? 0 : 1) + (task.number.empty() ? 0 : 1) +
                   (task.targets.empty() ? 0 : 1);
  SY_CHECK(ways == 1, place, "a task's target is given by exactly one of labels, answers, number and targets, got ",
           ways, " of them");
  if (!task.labels.empty()) return TargetKind::kLabel;
  if (!task.answers.empty()) return TargetKind::kAnswers;
  return task.number.empty() ? TargetKind::kText : TargetKind::kNumber;
}

void check(const Task& task) {
  SY_CHECK(!task.inputs.empty(), task.source, ": [task] needs inputs, a text with {field}s");
  // Making a template checks it.
  [[maybe_unused]] const Template inputs{task.inputs, task.source + ": inputs"};
  [[maybe_unused]] const Template targets{task.targets, task.source + ": targets"};
  const auto forms = row_form_names();
  SY_CHECK(task.rows.empty() || std::find(forms.begin(), forms.end(), task.rows) != forms.end(), task.source,
           ": rows = \"", task.rows, "\" is not known", nearest_hint(task.rows, forms));
  SY_CHECK(!task.metrics.empty(), task.source, ": [task] needs metrics, a list of ", join_names(metric_names()));
  for (const auto& metric : task.metrics) check_metric(metric, task);
}

const std::array<Benchmark, 2>& benchmarks() {
  // T5 leaves WNLI out of its average, and diagnostics (AX) are in none.
  static const std::array<Benchmark, 2> list = {
      {{"glue", {"glue_cola", "glue_sst2", "glue_mrpc", "glue_stsb", "glue_qqp", "glue_mnli", "glue_qnli", "glue_rte"}},
       {"superglue",
        {"superglue_boolq", "superglue_cb", "superglue_copa", "superglue_multirc", "superglue_record", "superglue_rte",
         "superglue_wic", "superglue_wsc"}}}};
  return list;
}

// "translate_en_de" as {"en", "de"}; empty for another name.
std::vector<std::string> translation_languages(std::string_view name) {
  constexpr std::string_view kPrefix = "translate_";
  if (!name.starts_with(kPrefix)) return {};
  name.remove_prefix(kPrefix.size());
  const size_t underscore = name.find('_');
  if (underscore == name.npos || underscore == 0 || underscore + 1 == name.size()) return {};
  return {std::string(name.substr(0, underscore)), std::string(name.substr(underscore + 1))};
}

const BuiltinTask* find_builtin(std::string_view name) {
  for (const auto& task : builtin_tasks())
    if (task.name == name) return &task;
  return nullptr;
}

}  // namespace

Task parse_task(std::string_view toml, const std::string& name, const std::string& source) {
  const auto document = parse_toml(toml, source);
  for (const auto& [section, unused] : document.sections.items())
    SY_CHECK(section == "task" || section == "fields" || section == "splits", source, ": [", section,
             "] is no section of a task; expected [task], [fields] or [splits]");
  SY_CHECK(document.sections.contains("task"), source, ": no section [task]");
  Task task;
  task.name = name;
  task.source = source;
  read_fields(task, document);
  read_lists(document, "fields", task.other_fields);
  read_lists(document, "splits", task.splits);
  if (task.folders.empty()) task.folders = {name};
  task.kind = kind_of(task);
  check(task);
  return task;
}

Task find_task(const std::string& name) {
  const std::filesystem::path path(name);
  if (path.extension() == ".toml") return parse_task(read_file(path, 1 << 20), path.stem().string(), name);
  if (const auto* builtin = find_builtin(name)) return parse_task(builtin->toml, name, "task " + name);
  if (const auto languages = translation_languages(name); !languages.empty()) {
    auto task = parse_task(find_builtin("translate")->toml, "translate", "task " + name);
    task.name = name;
    task.source_language = languages[0];
    task.target_language = languages[1];
    return task;
  }
  const size_t dot = name.find('.');
  if (const auto* builtin = dot == name.npos ? nullptr : find_builtin(name.substr(0, dot))) {
    auto task = parse_task(builtin->toml, std::string(builtin->name), "task " + name);
    task.name = name;
    SY_CHECK(task.language_files, "task ", name, ": ", builtin->name, " has no languages");
    task.language = name.substr(dot + 1);
    return task;
  }
  throw Error(join("no task \"", name, "\"", nearest_hint(name, builtin_task_names()),
                   "; known: ", join_names(builtin_task_names()), ", or the path of a .toml file"));
}

std::vector<std::string> builtin_task_names() {
  std::vector<std::string> names;
  for (const auto& task : builtin_tasks()) names.emplace_back(task.name);
  return names;
}

const Benchmark* find_benchmark(std::string_view name) {
  for (const auto& benchmark : benchmarks())
    if (benchmark.name == name) return &benchmark;
  return nullptr;
}

}  // namespace switchyard
