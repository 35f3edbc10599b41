// Records of data files, one by one: JSON Lines, or tables whose cells have names. Compressed files are read as they
// are.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "text/compressed_input.h"

namespace switchyard {

// Lines without their ends, a byte order mark or \r.
class LineReader {
 public:
  static constexpr size_t kMaxLineBytes = 64 << 20;

  explicit LineReader(const std::filesystem::path& path);  // throws Error
  bool next(std::string& line);                            // false at the end; throws Error for a longer line
  std::string place() const { return join(name_, ":", number_); }

 private:
  CompressedInput input_;
  std::string name_, buffer_;
  size_t begin_ = 0;
  int64_t number_ = 0;
};

// .jsonl .ndjson .tsv .csv, each also with .gz, .dz or .zst: the name without them; nothing for other files.
std::optional<std::string> data_file_stem(const std::filesystem::path& path);

struct Record {
  Json fields = Json::object();
  std::string place;    // "file:line"
  std::string problem;  // what is wrong with a line that is no record
};

class RecordReader {
 public:
  // `columns` names the cells of a table; empty: its first line does. Throws Error for a file of another kind, and a
  // table without names.
  RecordReader(const std::filesystem::path& path, std::vector<std::string> columns);
  std::optional<Record> next();  // nothing at the end; blank lines are passed over

 private:
  bool next_table_row(std::vector<std::string>& cells);

  enum class Format { kJsonLines, kTabs, kCommas };
  Format format_;
  LineReader lines_;
  std::string place_;  // of the table row last read
  std::vector<std::string> columns_;
};

}  // namespace switchyard
