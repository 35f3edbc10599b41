#include "tasks/records.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "metrics/unicode.h"
#include "text/utf8.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

std::string lower_extension(const fs::path& path) { return lower_case(path.extension().string()); }

fs::path without_compression(const fs::path& path) {
  const auto extension = lower_extension(path);
  return extension == ".gz" || extension == ".dz" || extension == ".zst" ? path.stem() : path.filename();
}

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

// Cells between commas, in quotes where they hold commas, quotes (doubled) or line ends.
std::vector<std::string> split_commas(const std::string& line) {
  std::vector<std::string> cells(1);
  bool quoted = false;
  for (size_t at = 0; at < line.size(); ++at) {
    const char c = line[at];
    if (quoted && c == '"' && at + 1 < line.size() && line[at + 1] == '"')
      cells.back() += line[at++];
    else if (c == '"')
      quoted = !quoted;
    else if (c == ',' && !quoted)
      cells.emplace_back();
    else
      cells.back() += c;
  }
  return cells;
}

}  // namespace

LineReader::LineReader(const fs::path& path) : input_(path), name_(path.string()) {}

bool LineReader::next(std::string& line) {
  constexpr size_t kChunkBytes = 1 << 18;
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  size_t searched = begin_;
  size_t end = 0;
  while ((end = buffer_.find('\n', searched)) == buffer_.npos) {
    SY_CHECK(buffer_.size() - begin_ <= kMaxLineBytes, name_, ":", number_ + 1, ": a line of more than ",
             kMaxLineBytes >> 20, " MiB");
    buffer_.erase(0, begin_);
    begin_ = 0;
    searched = buffer_.size();
    buffer_.resize(searched + kChunkBytes);
    buffer_.resize(searched + input_.read(buffer_.data() + searched, kChunkBytes));
    if (buffer_.size() == searched) {
      if (buffer_.empty()) return false;
      end = buffer_.size();
      break;
    }
  }
  line.assign(buffer_, begin_, end - begin_);
  begin_ = std::min(end + 1, buffer_.size());
  if (number_++ == 0 && line.starts_with(kByteOrderMark)) line.erase(0, kByteOrderMark.size());
  if (line.ends_with('\r')) line.pop_back();
  return true;
}

std::optional<std::string> data_file_stem(const fs::path& path) {
  static const std::set<std::string> kExtensions = {".jsonl", ".ndjson", ".tsv", ".csv"};
  const auto name = without_compression(path);
  if (!kExtensions.contains(lower_extension(name))) return std::nullopt;
  return name.stem().string();
}

RecordReader::RecordReader(const fs::path& path, std::vector<std::string> columns)
    : lines_(path), columns_(std::move(columns)) {
  const auto extension = lower_extension(without_compression(path));
  SY_CHECK(data_file_stem(path), path.string(), ": expected a .jsonl, .tsv or .csv file, also with .gz or .zst");
  format_ = extension == ".tsv" ? Format::kTabs : extension == ".csv" ? Format::kCommas : Format::kJsonLines;
  if (format_ == Format::kJsonLines || !columns_.empty()) return;
  SY_CHECK(next_table_row(columns_), path.string(), ": an empty table");
  std::set<std::string> names;
  for (const auto& name : columns_)
    SY_CHECK(!is_blank(name) && names.insert(name).second, place_, ": the first line of a table names its cells, and ",
             is_blank(name) ? "one has no name" : "\"" + name + "\" is there twice",
             "; give the names with `columns` under [task] if it does not");
}

bool RecordReader::next_table_row(std::vector<std::string>& cells) {
  std::string line;
  do {
    if (!lines_.next(line)) return false;
  } while (is_blank(line) && format_ == Format::kCommas);
  place_ = lines_.place();
  if (format_ == Format::kTabs) {
    cells.clear();
    for (const auto cell : split_at(line, '\t')) cells.emplace_back(cell);
    return true;
  }
  std::string more;
  while (std::count(line.begin(), line.end(), '"') % 2 == 1 && line.size() < LineReader::kMaxLineBytes &&
         lines_.next(more))
    line += '\n' + more;
  cells = split_commas(line);
  return true;
}

std::optional<Record> RecordReader::next() {
  Record record;
  if (format_ == Format::kJsonLines) {
    std::string line;
    do {
      if (!lines_.next(line)) return std::nullopt;
    } while (is_blank(line));
    record.place = lines_.place();
    if (find_invalid_utf8(line) != line.size()) {
      record.problem = "not UTF-8";
      return record;
    }
    try {
      record.fields = parse_json(line, record.place);
      if (!record.fields.is_object()) record.problem = "expected a JSON object";
    } catch (const Error& error) {
      record.problem = std::string(error.what()).substr(record.place.size() + 2);
    }
    return record;
  }
  std::vector<std::string> cells;
  if (!next_table_row(cells)) return std::nullopt;
  record.place = place_;
  if (cells.size() != columns_.size()) {
    record.problem = join("a row of ", cells.size(), " cells, expected ", columns_.size());
    return record;
  }
  for (size_t n = 0; n < cells.size(); ++n) {
    if (find_invalid_utf8(cells[n]) != cells[n].size()) record.problem = "not UTF-8";
    record.fields[columns_[n]] = cells[n];
  }
  return record;
}

}  // namespace switchyard
