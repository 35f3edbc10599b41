// Pairs of lines of line-aligned documents in two languages: files LANGUAGE.jsonl whose documents of one id have the
// same lines in the same order.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "tasks/records.h"
#include "tasks/task.h"

namespace switchyard {

// Calls `take` with records {source, target, source_language, target_language (English names, of languages.tsv), id},
// and with a problem for documents that do not have the same number of lines. `split` is the beginning of ids: ntrex,
// flores/dev, flores/devtest; flores_dev does too. Of an id's variants (id#variant) the file's first is taken. Throws
// Error if a file is missing or no document is in both.
void read_aligned(const Task& task, const std::filesystem::path& folder, const std::string& split,
                  const std::function<void(const Record&)>& take);

}  // namespace switchyard
