// A task as text to text: how a row of data becomes an input and a target, what an output means, and which numbers are
// reported. A task is declared by one TOML file; those of configs/tasks are built in.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/config.h"

namespace switchyard {

// What a target is, and so how an output is read.
enum class TargetKind {
  kText,      // any text, as `targets` says
  kLabel,     // one of `labels`
  kAnswers,   // the first of a list of answers, any of which is right
  kChoice,    // one of the texts in the row's list `choices`
  kNumber,    // a number, rounded to the nearest 0.2 (STS-B)
  kReferent,  // a phrase of the text that a pronoun may stand for; the label says whether it does (WSC)
};

struct Task {
  std::string name;     // the file's, without .toml
  std::string source;   // the file, for messages
  std::string inputs;   // text with {field}s; {{ and }} are braces
  std::string targets;  // the same, where the target is text of its own
  std::string rows;     // code that makes rows out of a file's records: "" (a record is a row), squad, multirc, ...
  std::vector<std::string> metrics;
  std::vector<std::string> labels;        // texts of the classes 0, 1, ...
  std::string label = "label";            // field: the number of a class, or its text
  int64_t first_label = 0;                // the number that means labels[0]
  std::string answers;                    // field: list of right answers
  std::string number;                     // field: the number to be written
  bool pad_punctuation = false;           // T5's spaces round punctuation, in fields and answers
  std::vector<std::string> may_be_empty;  // fields in which no text is no fault
  std::vector<std::string> folders;       // names of the folder in a folder of data, the first that is there
  std::vector<std::string> columns;  // names of the cells of TSV and CSV files without a first line that names them
  bool language_files = false;       // the folder's files are languages, not splits
  std::string split_field;           // field that names a row's split
  std::string language;              // of language_files, the only one wanted; "": all
  std::string source_language, target_language;  // rows = "aligned": codes of the two files
  std::vector<std::string> eval_splits;          // evaluated by default, those of them that are there

  std::map<std::string, std::vector<std::string>> other_fields;  // names to try where a field is missing
  std::map<std::string, std::vector<std::string>> splits;        // files of splits that have none of their own name

  TargetKind kind = TargetKind::kText;

  template <class Self, class Field>
  static void visit(Self& self, Field&& field) {
    field("inputs", self.inputs, "text with {field}s");
    field("targets", self.targets, "the same, for targets that are neither labels nor answers");
    field("rows", self.rows, "code that makes rows out of records");
    field("metrics", self.metrics, "what is reported");
    field("labels", self.labels, "texts of the classes, in order");
    field("label", self.label, "field that holds a class, by number or by text");
    field("first_label", self.first_label, "number of the first class");
    field("answers", self.answers, "field that holds a list of right answers");
    field("number", self.number, "field that holds a number from 0 to 5");
    field("pad_punctuation", self.pad_punctuation, "spaces round punctuation");
    field("may_be_empty", self.may_be_empty, "fields in which no text is no fault");
    field("folders", self.folders, "names of the task's folder");
    field("columns", self.columns, "names of a table's cells");
    field("language_files", self.language_files, "each file is a language");
    field("split_field", self.split_field, "field that names a row's split");
    field("source_language", self.source_language, "code of the language translated from");
    field("target_language", self.target_language, "code of the language translated to");
    field("eval_splits", self.eval_splits, "splits evaluated by default");
  }
};

// Throws Error, naming file and line, for an unknown key, metric or rows, and for keys that do not go together.
Task parse_task(std::string_view toml, const std::string& name, const std::string& source);

// A built-in task's name, one with a language (xquad.de), translate_SOURCE_TARGET, or the path of a TOML file. Throws
// Error naming the nearest known one.
Task find_task(const std::string& name);

std::vector<std::string> builtin_task_names();

// Tasks that are reported together, with T5's average: the mean over groups of the mean over a group's numbers.
struct Benchmark {
  std::string name;
  std::vector<std::string> tasks;
};

// "glue" or "superglue"; nullptr for any other name.
const Benchmark* find_benchmark(std::string_view name);

}  // namespace switchyard
