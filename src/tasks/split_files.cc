#include "tasks/split_files.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "tasks/records.h"
#include "tasks/template.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

// The names that a split goes by, its own first.
Names names_of(const std::string& split) {
  static const std::vector<Names> kSynonyms = {{"validation", "dev", "valid", "val"}, {"train", "training"}};
  Names names = {split};
  for (const auto& group : kSynonyms)
    if (std::find(group.begin(), group.end(), split) != group.end())
      for (const auto& name : group)
        if (name != split) names.push_back(name);
  return names;
}

// Data files of a folder by their names without extensions.
std::map<std::string, fs::path> data_files(const fs::path& folder) {
  std::map<std::string, fs::path> files;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const auto stem = data_file_stem(entry->path());
    if (!stem) continue;
    const auto [found, is_new] = files.emplace(*stem, entry->path());
    SY_CHECK(is_new, folder.string(), ": both ", found->second.filename().string(), " and ",
             entry->path().filename().string(), "; keep one file a split");
  }
  SY_CHECK(!error, "cannot list ", folder.string(), ": ", error.message());
  return files;
}

Names keys(const std::map<std::string, fs::path>& files) {
  Names names;
  for (const auto& [name, unused] : files) names.push_back(name);
  return names;
}

[[noreturn]] void no_split(const Task& task, const fs::path& folder, const std::string& split, Names known) {
  for (const auto& [name, unused] : task.splits)
    if (std::find(known.begin(), known.end(), name) == known.end()) known.push_back(name);
  throw Error(join(task.name, ": no split \"", split, "\" in ", folder.string(), nearest_hint(split, known),
                   known.empty() ? "; it has no .jsonl, .tsv or .csv files" : "; there are " + join_names(known)));
}

SplitFiles language_split(const Task& task, const fs::path& folder, const std::string& split) {
  const auto files = data_files(folder);
  SplitFiles result;
  const bool split_is_file = files.contains(split);
  const auto wanted = !task.language.empty() ? task.language : split_is_file ? split : "";
  for (const auto& [language, path] : files)
    if (wanted.empty() || language == wanted) result.files.push_back({path, language});
  if (result.files.empty()) no_split(task, folder, wanted, keys(files));
  if (split_is_file) return result;
  if (!task.split_field.empty()) {
    result.values = names_of(split);
    return result;
  }
  const auto names = names_of("validation");
  if (split != "test" && std::find(names.begin(), names.end(), split) == names.end())
    no_split(task, folder, split, keys(files));
  return result;
}

}  // namespace

fs::path task_folder(const Task& task, const fs::path& data) {
  std::error_code ignored;
  SY_CHECK(fs::is_directory(data, ignored), data.string(),
           ": no such folder; expected the one that holds the tasks' folders");
  for (const auto& name : task.folders)
    if (fs::is_directory(data / name, ignored)) return data / name;
  return data;
}

SplitFiles find_split(const Task& task, const fs::path& data, const std::string& split) {
  const auto folder = task_folder(task, data);
  if (task.language_files) return language_split(task, folder, split);
  const auto files = data_files(folder);
  for (const auto& name : names_of(split))
    if (files.contains(name)) return {{{files.at(name), ""}}, {}};
  for (const auto& name : names_of(split)) {
    const auto listed = task.splits.find(name);
    if (listed == task.splits.end()) continue;
    SplitFiles result;
    for (const auto& file : listed->second) {
      if (files.contains(file)) {
        result.files.push_back({files.at(file), ""});
      } else {
        std::error_code ignored;
        SY_CHECK(fs::is_regular_file(folder / file, ignored), task.name, ": split ", split, " is ",
                 (folder / file).string(), ", which is no file");
        result.files.push_back({folder / file, ""});
      }
    }
    return result;
  }
  no_split(task, folder, split, keys(files));
}

std::vector<std::string> default_eval_splits(const Task& task, const fs::path& data) {
  const auto exists = [&](const std::string& split) {
    try {
      find_split(task, data, split);
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  if (task.rows == "aligned") return task.eval_splits;  // beginnings of ids, not files
  task_folder(task, data);                              // a missing folder is an error of its own
  Names present;
  for (const auto& split : task.eval_splits)
    if (exists(split)) present.push_back(split);
  if (!present.empty()) return present;
  return {exists("validation") || !exists("test") ? "validation" : "test"};
}

}  // namespace switchyard
