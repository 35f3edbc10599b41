#include "tasks/examples.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "metrics/unicode.h"
#include "tasks/aligned_text.h"
#include "tasks/records.h"
#include "tasks/row_forms.h"
#include "tasks/split_files.h"
#include "tasks/template.h"
#include "tasks/text_forms.h"

namespace switchyard {
namespace {

constexpr const char* kNoLabel = "<unk>";  // T5's target of a row with label -1

std::string classes_of(const Task& task) {
  return join(task.first_label, " ... ", task.first_label + static_cast<int64_t>(task.labels.size()) - 1, " (",
              join_names(task.labels), ")");
}

int64_t class_by_number(const Task& task, int64_t number, size_t num_classes) {
  if (number == -1) return -1;
  const int64_t result = number - task.first_label;
  SY_CHECK(result >= 0 && result < static_cast<int64_t>(num_classes), "label ", number, " is none of ",
           classes_of(task));
  return result;
}

// The class of a label field: a number, true or false, a class's text, or a number as text (in tables).
int64_t class_of(const Task& task, const Json& row) {
  const Json& value = field(task, row, task.label);
  if (value.is_boolean())
    return class_by_number(task, task.first_label + (value.get<bool>() ? 1 : 0), task.labels.size());
  if (value.is_number_integer()) return class_by_number(task, value.get<int64_t>(), task.labels.size());
  SY_CHECK(value.is_string(), "field \"", task.label, "\" is ", value.type_name(),
           ", expected a class: ", classes_of(task));
  const auto& text = value.get_ref<const std::string&>();
  const auto found = std::find(task.labels.begin(), task.labels.end(), text);
  if (found != task.labels.end()) return found - task.labels.begin();
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  SY_CHECK(error == std::errc() && end == text.data() + text.size(), "label \"", text.substr(0, 60), "\" is none of ",
           classes_of(task));
  return class_by_number(task, number, task.labels.size());
}

std::string example_text(const Task& task, const std::string& text) {
  return task.pad_punctuation ? pad_punctuation(text) : text;
}

void read_answers(const Task& task, const Json& row, TaskExample& example) {
  const Json& answers = field(task, row, task.answers);
  std::vector<std::string> published;
  if (answers.is_string()) published.push_back(text_field(task, row, task.answers));  // a table has one
  SY_CHECK(answers.is_string() || answers.is_array(), "field \"", task.answers, "\" is ", answers.type_name(),
           ", expected a list of texts");
  if (answers.is_array())
    for (const auto& answer : answers) {
      SY_CHECK(answer.is_string() && !strip(answer.get_ref<const std::string&>()).empty(), "field \"", task.answers,
               "\" holds ", answer.is_string() ? "an empty text" : answer.type_name(), ", expected texts");
      published.push_back(answer.get<std::string>());
    }
  const bool has_target = find_field(task, row, "target") != nullptr;
  SY_CHECK(!published.empty() || has_target, "field \"", task.answers, "\" is an empty list");
  for (const auto& answer : published) example.references.push_back(example_text(task, answer));
  example.targets = has_target ? text_field(task, row, "target") : example.references.front();
  if (task.pad_punctuation) example.references.insert(example.references.end(), published.begin(), published.end());
}

void read_number(const Task& task, const Json& row, TaskExample& example) {
  constexpr double kLargest = 5.0;
  const Json& value = field(task, row, task.number);
  const double number = value.is_number()   ? value.get<double>()
                        : value.is_string() ? parse_number(value.get<std::string>(), -1)
                                            : -1;
  SY_CHECK(number >= 0 && number <= kLargest, "field \"", task.number, "\" is ", value.dump(),
           ", expected a number from 0 to 5");
  example.targets = similarity_text(number);
}

void read_choice(const Task& task, const Json& row, TaskExample& example) {
  for (const auto& choice : field(task, row, "choices")) {
    SY_CHECK(choice.is_string() && !strip(choice.get_ref<const std::string&>()).empty(),
             "field \"choices\" holds an empty text, or no text");
    example.references.push_back(choice.get<std::string>());
  }
  const Json& answer = field(task, row, "answer");
  SY_CHECK(answer.is_number_integer() && answer >= 0 && answer < static_cast<int64_t>(example.references.size()),
           "field \"answer\" is ", answer.dump(), ", expected the number of a choice, from 0 to ",
           static_cast<int64_t>(example.references.size()) - 1);
  example.target_class = answer.get<int64_t>();
  example.targets = example.references[static_cast<size_t>(example.target_class)];
}

class Reader {
 public:
  Reader(const Task& task, const ReadOptions& options) : task_(task), options_(options) {}

  void take(const Record& record, const std::string& language) {
    if (!record.problem.empty()) return add_bad(record.place, record.problem);
    std::vector<Json> rows;
    try {
      rows = make_rows(task_, record.fields);
    } catch (const Error& error) {
      return add_bad(record.place, error.what());
    }
    for (size_t n = 0; n < rows.size(); ++n) {
      const auto place = rows.size() == 1 ? record.place : join(record.place, ", row ", n + 1);
      try {
        auto example = make_example(task_, rows[n]);
        if (options_.for_training && task_.kind == TargetKind::kReferent && example.target_class != 1) continue;
        example.place = place;
        example.language = language;
        read_.examples.push_back(std::move(example));
      } catch (const Error& error) {
        add_bad(place, error.what());
      }
    }
  }

  TaskExamples finish(const std::string& split) {
    constexpr size_t kShown = 5;
    const size_t good = read_.examples.size();
    std::string listed;
    for (size_t n = 0; n < std::min(kShown, read_.bad_rows.size()); ++n)
      listed += "\n  " + read_.bad_rows[n].place + ": " + read_.bad_rows[n].problem;
    if (read_.bad_rows.size() > kShown) listed += "\n  ...";
    SY_CHECK(read_.bad_rows.empty() || options_.bad_rows == BadRows::kSkip, task_.name, ", split ", split, ": ",
             read_.bad_rows.size(), " of ", good + read_.bad_rows.size(),
             " rows are bad; mend them, or leave them out ", "with bad rows set to skip:", listed);
    SY_CHECK(good > 0, task_.name, ", split ", split, ": no example in it", listed);
    return std::move(read_);
  }

 private:
  void add_bad(const std::string& place, const std::string& problem) { read_.bad_rows.push_back({place, problem}); }

  const Task& task_;
  ReadOptions options_;
  TaskExamples read_;
};

bool is_in_split(const Task& task, const Json& record, const std::vector<std::string>& values) {
  if (values.empty()) return true;
  const Json* value = find_field(task, record, task.split_field);
  return value != nullptr && value->is_string() &&
         std::find(values.begin(), values.end(), value->get_ref<const std::string&>()) != values.end();
}

}  // namespace

TaskExample make_example(const Task& task, const Json& row) {
  TaskExample example;
  const auto value_of = [&](const std::string& name) { return example_text(task, text_field(task, row, name)); };
  example.inputs = Template(task.inputs, "inputs").fill(value_of);
  if (task.pad_punctuation) example.inputs = collapse_spaces(example.inputs);
  switch (task.kind) {
    case TargetKind::kText:
      example.targets = Template(task.targets, "targets").fill(value_of);
      break;
    case TargetKind::kLabel:
      example.target_class = class_of(task, row);
      example.targets = example.target_class < 0 ? kNoLabel : task.labels[static_cast<size_t>(example.target_class)];
      break;
    case TargetKind::kAnswers:
      read_answers(task, row, example);
      break;
    case TargetKind::kChoice:
      read_choice(task, row, example);
      break;
    case TargetKind::kNumber:
      read_number(task, row, example);
      break;
    case TargetKind::kReferent:
      example.targets = field(task, row, "referent").get<std::string>();
      example.target_class = class_of(task, row);
      break;
  }
  if (const Json* group = find_field(task, row, "group"); group != nullptr && group->is_string())
    example.group = group->get<std::string>();
  return example;
}

TaskExamples read_examples(const Task& task, const std::filesystem::path& data, const std::string& split,
                           const ReadOptions& options) {
  Reader reader(task, options);
  if (task.rows == "aligned") {
    read_aligned(task, task_folder(task, data), split, [&](const Record& record) { reader.take(record, ""); });
    return reader.finish(split);
  }
  const auto found = find_split(task, data, split);
  for (const auto& [path, language] : found.files) {
    RecordReader records(path, task.columns);
    while (const auto record = records.next())
      if (!record->problem.empty() || is_in_split(task, record->fields, found.values)) reader.take(*record, language);
  }
  return reader.finish(split);
}

}  // namespace switchyard
