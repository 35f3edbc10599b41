#include "tasks/aligned_text.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "metrics/unicode.h"
#include "tasks/text_forms.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

struct Document {
  std::string text, place;
};

fs::path language_file(const fs::path& folder, const std::string& language) {
  for (const char* place : {"", "mc4_101", "extra"}) {
    std::error_code ignored;
    for (const char* extension : {".jsonl.gz", ".jsonl", ".jsonl.zst"})
      if (auto path = folder / place / (language + extension); fs::is_regular_file(path, ignored)) return path;
  }
  throw Error(join(folder.string(), ": no ", language, ".jsonl in it, in mc4_101 or in extra"));
}

// Documents of the split by id, the first variant of each, in the file's order.
std::vector<std::pair<std::string, Document>> read_documents(const fs::path& path, const std::string& split) {
  std::vector<std::pair<std::string, Document>> documents;
  std::map<std::string, bool> seen;
  RecordReader reader(path, {});
  while (const auto record = reader.next()) {
    SY_CHECK(record->problem.empty(), record->place, ": ", record->problem);
    const auto id_field = record->fields.find("id"), text = record->fields.find("text");
    SY_CHECK(
        id_field != record->fields.end() && id_field->is_string() && text != record->fields.end() && text->is_string(),
        record->place, ": expected the texts \"id\" and \"text\"");
    std::string id = id_field->get<std::string>();
    id = id.substr(0, id.find('#'));
    if (!id.starts_with(split + "/") || !seen.emplace(id, true).second) continue;
    documents.push_back({id, {text->get<std::string>(), record->place}});
  }
  return documents;
}

// The name by which languages.tsv knows a code, with only its main part as T5 has it: "Norwegian".
std::string english_name(const fs::path& folder, const std::string& code) {
  const auto path = folder / "languages.tsv";
  RecordReader reader(path, {});
  while (const auto record = reader.next())
    if (record->problem.empty() && record->fields.value("code", "") == code) return record->fields.value("name", "");
  throw Error(join(path.string(), ": no language \"", code, "\""));
}

}  // namespace

void read_aligned(const Task& task, const fs::path& folder, const std::string& split,
                  const std::function<void(const Record&)>& take) {
  const auto source_path = language_file(folder, task.source_language);
  const auto target_path = language_file(folder, task.target_language);
  const std::string prefix = replace_all(split, "_", "/");
  std::map<std::string, Document> targets;
  for (auto& [id, document] : read_documents(target_path, prefix)) targets.emplace(id, std::move(document));
  const auto source_name = english_name(folder, task.source_language);
  const auto target_name = english_name(folder, task.target_language);
  bool any = false;
  for (const auto& [id, source] : read_documents(source_path, prefix)) {
    const auto target = targets.find(id);
    if (target == targets.end()) continue;
    any = true;
    const auto source_lines = split_at(source.text, '\n'), target_lines = split_at(target->second.text, '\n');
    Record record;
    record.place = source.place;
    if (source_lines.size() != target_lines.size()) {
      record.problem = join("document ", id, " has ", source_lines.size(), " lines, and ", target_lines.size(), " at ",
                            target->second.place);
      take(record);
      continue;
    }
    for (size_t n = 0; n < source_lines.size(); ++n) {
      record.place = join(source.place, ", line ", n + 1, " of the document");
      record.fields = {{"source", std::string(source_lines[n])},
                       {"target", std::string(target_lines[n])},
                       {"source_language", source_name},
                       {"target_language", target_name},
                       {"id", id}};
      take(record);
    }
  }
  SY_CHECK(any, task.name, ": no document with an id that begins ", prefix, "/ is in both ", source_path.string(),
           " and ", target_path.string(), "; splits are ntrex, flores_dev and flores_devtest");
}

}  // namespace switchyard
