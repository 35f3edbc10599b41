#include "tasks/row_forms.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/error.h"
#include "metrics/unicode.h"
#include "tasks/text_forms.h"
#include "tasks/winograd.h"

namespace switchyard {
namespace {

const Json* find_path(const Json& row, const std::string& path) {
  const Json* value = &row;
  for (const auto name : split_at(path, '.')) {
    if (!value->is_object()) return nullptr;
    const auto found = value->find(std::string(name));
    if (found == value->end()) return nullptr;
    value = &*found;
  }
  return value->is_null() ? nullptr : value;
}

const Json& list_field(const Task& task, const Json& row, const std::string& name) {
  const Json& value = field(task, row, name);
  SY_CHECK(value.is_array(), "field \"", name, "\" is ", value.type_name(), ", expected a list");
  return value;
}

int64_t whole_number(const Task& task, const Json& row, const std::string& name) {
  const Json& value = field(task, row, name);
  SY_CHECK(value.is_number_integer(), "field \"", name, "\" is ", value.type_name(), ", expected a whole number");
  return value.get<int64_t>();
}

// Answers as a list of texts: a list of texts or of {"text": ...}, or TFDS' {"text": [...]}.
Json answer_texts(const Json& answers) {
  if (answers.is_object() && answers.contains("text")) return answers.at("text");
  if (!answers.is_array()) return answers;
  Json texts = Json::array();
  for (const auto& answer : answers)
    texts.push_back(answer.is_object() && answer.contains("text") ? answer.at("text") : answer);
  return texts;
}

// A paragraph with its questions, or one question with its context.
std::vector<Json> squad_rows(const Task& task, const Json& record) {
  const Json* questions = find_field(task, record, "qas");
  if (questions == nullptr) {
    Json row = record;
    if (const Json* answers = find_field(task, record, "answers")) row["answers"] = answer_texts(*answers);
    return {row};
  }
  const auto& context = field(task, record, "context");
  std::vector<Json> rows;
  for (const auto& question : list_field(task, record, "qas")) {
    SY_CHECK(question.is_object(), "field \"qas\" holds ", question.type_name(), ", expected objects");
    Json row = question;
    row["context"] = context;
    if (const Json* answers = find_field(task, question, "answers")) row["answers"] = answer_texts(*answers);
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string without_tags(std::string text) {
  return replace_all(replace_all(replace_all(std::move(text), "<br>", " "), "<b>", ""), "</b>", "");
}

// A paragraph with its questions and their answers, or one answer.
std::vector<Json> multirc_rows(const Task& task, const Json& record) {
  const Json* passage = find_field(task, record, "passage");  // SuperGLUE's own files
  const Json& paragraph_record = passage != nullptr && passage->is_object() ? *passage : record;
  const Json* questions = find_field(task, paragraph_record, "questions");
  if (questions == nullptr) {
    Json row = record;
    for (const char* name : {"question", "answer", "paragraph"})
      row[name] = without_tags(text_field(task, record, name));
    if (const Json* group = find_path(record, "idx.question")) row["group"] = group->dump();
    return {row};
  }
  const auto paragraph = without_tags(text_field(task, paragraph_record, passage == nullptr ? "paragraph" : "text"));
  std::vector<Json> rows;
  for (const auto& question : list_field(task, paragraph_record, "questions")) {
    const auto text = without_tags(text_field(task, question, "question"));
    const auto group = field(task, question, "idx").dump();
    for (const auto& answer : list_field(task, question, "answers"))
      rows.push_back({{"question", text},
                      {"answer", without_tags(text_field(task, answer, "answer"))},
                      {"paragraph", paragraph},
                      {"label", field(task, answer, "label")},
                      {"group", group}});
  }
  return rows;
}

// Highlights behind a passage become its sentences.
std::string with_highlights(const std::string& passage) {
  constexpr std::string_view kMark = "\n@highlight\n", kEnds = ".?!\"'";
  std::string text;
  size_t begin = 0;
  for (size_t at = passage.find(kMark); at != passage.npos; at = passage.find(kMark, begin)) {
    text.append(passage, begin, at - begin);
    const bool ended = at > begin && kEnds.find(passage[at - 1]) != kEnds.npos;
    text += ended ? " " : ". ";
    begin = at + kMark.size();
  }
  return text.append(passage, begin);
}

void add_record_rows(const Json& query, const Json& answers, const std::string& entities, const std::string& passage,
                     const std::string& group, std::vector<Json>& rows) {
  Json row = {{"query", query}, {"entities", entities}, {"passage", passage}, {"answers", answers}, {"group", group}};
  if (answers.empty()) row["target"] = "<unk>";
  for (const auto& answer : answers) {
    row["target"] = answer;
    rows.push_back(row);
  }
  if (answers.empty()) rows.push_back(row);
}

std::string joined(const std::set<std::string>& texts) {
  std::string text;
  for (const auto& one : texts) text += (text.empty() ? "" : ", ") + one;
  return text;
}

// ReCoRD, a row an answer: SuperGLUE's own files (entities as character offsets), or TFDS' rows.
std::vector<Json> record_rows(const Task& task, const Json& record) {
  std::vector<Json> rows;
  const Json& passage = field(task, record, "passage");
  if (!passage.is_object()) {
    std::string entities;
    for (const auto& entity : list_field(task, record, "entities")) {
      SY_CHECK(entity.is_string(), "field \"entities\" holds ", entity.type_name(), ", expected texts");
      entities += (entities.empty() ? "" : ", ") + entity.get<std::string>();
    }
    const auto group = find_field(task, record, "idx") != nullptr ? field(task, record, "idx").dump() : record.dump();
    add_record_rows(field(task, record, "query"), list_field(task, record, "answers"), entities,
                    with_highlights(text_field(task, record, "passage")), group, rows);
    return rows;
  }
  const auto text = text_field(task, passage, "text");
  const auto characters = decode_utf8(text);
  std::set<std::string> entities;
  for (const auto& entity : list_field(task, passage, "entities")) {
    const int64_t start = whole_number(task, entity, "start"), end = whole_number(task, entity, "end");
    SY_CHECK(0 <= start && start <= end && end < static_cast<int64_t>(characters.size()), "an entity from character ",
             start, " to ", end, " of a passage of ", characters.size());
    entities.insert(encode_utf8(
        std::u32string_view(characters).substr(static_cast<size_t>(start), static_cast<size_t>(end - start + 1))));
  }
  for (const auto& question : list_field(task, record, "qas")) {
    std::set<std::string> answers;
    if (find_field(task, question, "answers") != nullptr)
      for (const auto& answer : list_field(task, question, "answers")) answers.insert(text_field(task, answer, "text"));
    add_record_rows(field(task, question, "query"), answers, joined(entities), with_highlights(text),
                    field(task, question, "idx").dump(), rows);
  }
  return rows;
}

std::vector<Json> wsc_rows(const Task& task, const Json& record) {
  const Json* target = find_field(task, record, "target");  // SuperGLUE's own files
  const Json& spans = target != nullptr && target->is_object() ? *target : record;
  const WscRow row = {.text = text_field(task, record, "text"),
                      .span1_text = text_field(task, spans, "span1_text"),
                      .span2_text = text_field(task, spans, "span2_text"),
                      .span1_index = whole_number(task, spans, "span1_index"),
                      .span2_index = whole_number(task, spans, "span2_index")};
  Json result = record;
  result["marked"] = star_pronoun(row);
  result["referent"] = fixed_referent(row);
  return {result};
}

std::vector<Json> wnli_rows(const Task& task, const Json& record) {
  Json row = record;
  const auto found = find_referent(text_field(task, record, "sentence1"), text_field(task, record, "sentence2"));
  row["marked"] = found.marked;
  row["referent"] = found.referent;
  return {row};
}

std::vector<Json> dpr_rows(const Task& task, const Json& record) {
  Json row = record;
  row["marked"] = star_first(text_field(task, record, "sentence"), text_field(task, record, "pronoun"));
  row["choices"] = list_field(task, record, "candidates");
  row["answer"] = field(task, record, "label");
  return {row};
}

std::vector<Json> choice_rows(const Task& task, const Json& record) {
  Json row = record;
  std::string options;
  char letter = 'A';
  const Json& choices = list_field(task, record, "choices");
  SY_CHECK(choices.size() <= 26, choices.size(), " choices, expected letters for them");
  for (const auto& choice : choices) {
    SY_CHECK(choice.is_string(), "field \"choices\" holds ", choice.type_name(), ", expected texts");
    options += join(options.empty() ? "(" : " (", letter++, ") ", choice.get<std::string>());
  }
  row["options"] = options;
  return {row};
}

// Neighbouring rows 0 and 1, 2 and 3, ... by their idx belong together (AX-g).
std::vector<Json> pair_rows(const Task& task, const Json& record) {
  Json row = record;
  row["group"] = std::to_string(whole_number(task, record, "idx") / 2);
  return {row};
}

struct RowForm {
  const char* name;
  std::vector<Json> (*rows)(const Task&, const Json&);
};
constexpr std::array<RowForm, 8> kForms = {{{"squad", squad_rows},
                                            {"multirc", multirc_rows},
                                            {"record", record_rows},
                                            {"wsc", wsc_rows},
                                            {"wnli", wnli_rows},
                                            {"dpr", dpr_rows},
                                            {"choices", choice_rows},
                                            {"pairs", pair_rows}}};

}  // namespace

const Json* find_field(const Task& task, const Json& row, const std::string& name) {
  if (const Json* found = find_path(row, name)) return found;
  const auto others = task.other_fields.find(name);
  if (others == task.other_fields.end()) return nullptr;
  for (const auto& other : others->second)
    if (const Json* found = find_path(row, other)) return found;
  return nullptr;
}

const Json& field(const Task& task, const Json& row, const std::string& name) {
  const Json* found = find_field(task, row, name);
  if (found != nullptr) return *found;
  std::string known;
  int count = 0;
  if (row.is_object())
    for (const auto& [key, unused] : row.items())
      if (++count <= 12) known += (known.empty() ? "" : ", ") + key.substr(0, 40);
  throw Error(join("no field \"", name, "\"", known.empty() ? "" : " (there are " + known + ")"));
}

std::string text_field(const Task& task, const Json& row, const std::string& name) {
  const Json& value = field(task, row, name);
  if (value.is_number() || value.is_boolean()) return value.dump();
  SY_CHECK(value.is_string(), "field \"", name, "\" is ", value.type_name(), ", expected text");
  auto text = value.get<std::string>();
  const auto& lenient = task.may_be_empty;
  const bool may_be_empty = std::find(lenient.begin(), lenient.end(), name) != lenient.end();
  SY_CHECK(may_be_empty || !strip(text).empty(), "field \"", name, "\" is empty");
  return text;
}

std::vector<std::string> row_form_names() {
  std::vector<std::string> names = {"aligned"};
  for (const auto& form : kForms) names.emplace_back(form.name);
  return names;
}

std::vector<Json> make_rows(const Task& task, const Json& record) {
  for (const auto& form : kForms)
    if (task.rows == form.name) return form.rows(task, record);
  return {record};
}

}  // namespace switchyard
