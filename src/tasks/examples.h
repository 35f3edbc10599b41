// A task's examples, read from files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "tasks/task.h"

namespace switchyard {

struct TaskExample {
  std::string inputs, targets;
  // kAnswers: all right answers (with pad_punctuation as T5 writes them, and as published); kChoice: the choices.
  std::vector<std::string> references;
  int64_t target_class = -1;  // kLabel, kChoice, kReferent; -1: not labelled, and the target of kLabel is "<unk>"
  std::string group;          // of examples that are scored together; "" where there are none
  std::string language;       // of tasks whose files are languages
  std::string place;          // "file:line", and the number of the row in it where a line has several
};

// What happens to rows that miss a field, have one of the wrong type or only white space, or name no class of the task.
enum class BadRows { kRefuse, kSkip };

struct ReadOptions {
  BadRows bad_rows = BadRows::kRefuse;
  bool for_training = false;  // leaves out what T5 does not train on: WSC's wrong referents
};

struct BadRow {
  std::string place, problem;
};

struct TaskExamples {
  std::vector<TaskExample> examples;  // in the files' order
  std::vector<BadRow> bad_rows;       // skipped
};

// Throws Error if the split is not there or has no good row, and with kRefuse for bad rows, naming the first of them.
TaskExamples read_examples(const Task& task, const std::filesystem::path& data, const std::string& split,
                           const ReadOptions& options = {});

// The example that a row makes; `place` and `language` are left to the caller. Throws Error saying what is wrong with
// the row.
TaskExample make_example(const Task& task, const Json& row);

}  // namespace switchyard
