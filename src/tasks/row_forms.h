// Rows out of records where a template does not suffice: a paragraph with its questions, a text with a pronoun.
#pragma once

#include <string>
#include <vector>

#include "base/config.h"
#include "tasks/task.h"

namespace switchyard {

// A field of a row, by its name or one of the task's other names for it; "answer.value" is a field of a field.
// nullptr if none is there.
const Json* find_field(const Task& task, const Json& row, const std::string& name);

// As find_field, but throws Error for a missing field, and text_field also for one that is no text (numbers are
// written out) or, unless the task says that it may be, only white space.
const Json& field(const Task& task, const Json& row, const std::string& name);
std::string text_field(const Task& task, const Json& row, const std::string& name);

std::vector<std::string> row_form_names();

// The record itself if the task has no code for it. Fields that code adds: `group` (examples that are scored together),
// `target` (this row's answer out of `answers`), `marked` and `referent` (pronouns), `options` ("(A) ... (B) ...").
// Throws Error for a missing field and one of the wrong type.
std::vector<Json> make_rows(const Task& task, const Json& record);

}  // namespace switchyard
