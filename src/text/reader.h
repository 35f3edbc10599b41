// Documents out of text files, one by one, in bounded memory.
//
// Formats, by name once .gz, .dz or .zst is taken off (compression itself is known by content):
//   .jsonl, .ndjson, .json   one JSON object a line, the document in its field "text" (C4 and its kind); lines where
//                     that is null are left out, and told on stderr after the last document
//   anything else     plain UTF-8 text. A document is a run of lines, ended by the first blank line after 64 kB, by any
//                     line end after 256 kB, or by the end of the file; so a short file is one document
// A folder stands for all files in it, at any depth, with the extensions of is_text_file, sorted by path; of plain
// .json files for those that begin with an object on one line with a "text". "-" is standard input: JSON Lines if it
// begins with '{', otherwise plain text. A byte order mark and \r at line ends are dropped; blank documents are
// skipped.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace switchyard {

// True for .txt .text .md .rst .pod .tex .jsonl .ndjson .json, each also with .gz, .dz or .zst.
bool is_text_file(const std::filesystem::path& path);

// The files that the given files, folders and "-" stand for. Throws Error for a path that does not exist and for a
// folder without text files.
std::vector<std::filesystem::path> find_text_files(const std::vector<std::filesystem::path>& paths);

class TextReader {
 public:
  static constexpr size_t kDocumentBytes = 64 << 10;  // plain text: a document ends at the first blank line after this
  static constexpr size_t kMaxDocumentBytes = 256 << 10;  // ... and at any line end after this
  static constexpr size_t kMaxTextLineBytes = 1 << 20;    // a longer line of plain text is cut at a space
  static constexpr size_t kMaxJsonLineBytes = 64 << 20;

  enum class EmptyText { kError, kAllowed };

  // Throws Error as find_text_files does; files are opened when their turn comes.
  explicit TextReader(const std::vector<std::filesystem::path>& paths, EmptyText empty_text = EmptyText::kError);
  ~TextReader();
  TextReader(TextReader&&) noexcept;

  // The next document, or nothing after the last. Throws Error, naming file and line, for text that is not UTF-8 (with
  // the byte), a JSON line without a string "text", a line that is too long, a damaged file, and if all files together
  // have no text.
  std::optional<std::string> next_document();

  std::string place() const;  // "file:line" where the last document began

 private:
  class OpenFile;
  void report_null_texts();

  std::deque<std::filesystem::path> files_;
  std::string description_;  // of the paths, for the message that there is no text
  std::unique_ptr<OpenFile> file_;
  std::string place_;
  bool found_any_;
  int64_t num_null_texts_ = 0;  // in files that are read
  std::string first_null_text_;
};

}  // namespace switchyard
