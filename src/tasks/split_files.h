// Which files of a folder hold a task's split.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tasks/task.h"

namespace switchyard {

struct SplitFile {
  std::filesystem::path path;
  std::string language;  // of language_files
};

struct SplitFiles {
  std::vector<SplitFile> files;
  std::vector<std::string> values;  // names of the split in split_field; empty: all rows
};

// The task's folder in `data`, a folder of tasks' folders, or `data` itself. Throws Error if it does not exist.
std::filesystem::path task_folder(const Task& task, const std::filesystem::path& data);

// A split is the file of its name, or of another name for it (validation, dev, valid, val), or what the task's [splits]
// says; of a task whose files are languages, all of them or one's, with the rows whose split_field says so. Throws
// Error naming the splits that are there.
SplitFiles find_split(const Task& task, const std::filesystem::path& data, const std::string& split);

// The task's own eval_splits that are there, or the first of validation and test.
std::vector<std::string> default_eval_splits(const Task& task, const std::filesystem::path& data);

}  // namespace switchyard
