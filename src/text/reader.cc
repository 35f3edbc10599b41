#include "text/reader.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <utility>

#include "base/config.h"
#include "base/error.h"
#include "base/messages.h"
#include "text/compressed_input.h"
#include "text/utf8.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

// "a.jsonl.gz" -> ".jsonl", in lower case.
std::string format_extension(const fs::path& path) {
  auto extension = [](const fs::path& name) {
    std::string text = name.extension().string();
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
    return text;
  };
  const std::string last = extension(path);
  return last == ".gz" || last == ".dz" || last == ".zst" ? extension(path.stem()) : last;
}

bool is_json_lines(const fs::path& path) {
  const std::string extension = format_extension(path);
  return extension == ".jsonl" || extension == ".ndjson" || extension == ".json";
}

// Whether a plain .json file that nobody named holds texts, one a line, as far as its first line shows: folders of text
// keep JSON about it too, such as dataset_info.json.
bool begins_with_a_text(const fs::path& path) {
  constexpr size_t kStartBytes = 1 << 16;
  std::string start(kStartBytes, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<size_t>(file.gcount()));
  const size_t begin = start.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos || start[begin] != '{') return false;
  return std::string_view(start).substr(begin, start.find('\n', begin) - begin).find("\"text\"") != std::string::npos;
}

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos; }

}  // namespace

bool is_text_file(const fs::path& path) {
  static constexpr std::array kExtensions = {".txt", ".text",  ".md",     ".rst", ".pod",
                                             ".tex", ".jsonl", ".ndjson", ".json"};
  const std::string extension = format_extension(path);
  return std::find(kExtensions.begin(), kExtensions.end(), extension) != kExtensions.end();
}

std::vector<fs::path> find_text_files(const std::vector<fs::path>& paths) {
  SY_CHECK(!paths.empty(), "no text given; name at least one file or folder");
  std::vector<fs::path> files;
  for (const auto& path : paths) {
    std::error_code error;
    const auto status = fs::status(path, error);
    if (path == "-") {
      files.push_back(path);
    } else if (fs::is_directory(status)) {
      std::vector<fs::path> found;
      fs::recursive_directory_iterator entry(path, error), end;
      for (; !error && entry != end; entry.increment(error)) {
        std::error_code ignored;
        if (!entry->is_regular_file(ignored) || !is_text_file(entry->path())) continue;
        if (entry->path().extension() != ".json" || begins_with_a_text(entry->path())) found.push_back(entry->path());
      }
      SY_CHECK(!error, "cannot list ", path.string(), ": ", error.message());
      SY_CHECK(!found.empty(), path.string(),
               ": no text files in this folder; expected .txt, .md, .rst, .pod, .tex, .jsonl or .json "
               "(one object a line), each also with .gz or .zst");
      std::sort(found.begin(), found.end());
      files.insert(files.end(), found.begin(), found.end());
    } else {
      SY_CHECK(fs::exists(status), "cannot read ", path.string(), ": ",
               error && error != std::errc::no_such_file_or_directory ? error.message() : "no such file or folder");
      files.push_back(path);
    }
  }
  return files;
}

// One file: bytes -> checked lines -> documents.
class TextReader::OpenFile {
 public:
  explicit OpenFile(const fs::path& path)
      : input_(path), name_(path == "-" ? "standard input" : path.string()), json_lines_(is_json_lines(path)) {
    fill();
    check_byte_order_mark();
    if (path == "-") {
      while (std::all_of(buffer_.begin() + static_cast<ptrdiff_t>(begin_), buffer_.end(),
                         [](char c) {
                           return is_blank({&c, 1});
                         }) &&
             buffer_.size() < kMaxTextLineBytes && fill()) {
      }
      const size_t first = buffer_.find_first_not_of(" \t\r\n", begin_);
      json_lines_ = first != std::string::npos && buffer_[first] == '{';
    }
  }

  std::optional<std::string> next_document() { return json_lines_ ? next_json() : next_text(); }
  std::string place() const { return join(name_, ":", document_line_); }
  int64_t num_null_texts() const { return num_null_texts_; }
  const std::string& first_null_text() const { return first_null_text_; }

 private:
  bool fill() {
    if (begin_ > 0) {
      buffer_.erase(0, begin_);
      begin_ = 0;
    }
    const size_t old_size = buffer_.size();
    constexpr size_t kChunkBytes = 1 << 18;
    buffer_.resize(old_size + kChunkBytes);
    const size_t count = input_.read(buffer_.data() + old_size, kChunkBytes);
    buffer_.resize(old_size + count);
    return count > 0;
  }

  void check_byte_order_mark() {
    const std::string_view start = buffer_;
    if (start.starts_with("\xef\xbb\xbf")) begin_ = 3;
    SY_CHECK(
        !start.starts_with("\xff\xfe") && !start.starts_with("\xfe\xff"), name_,
        ": this is UTF-16 text, expected UTF-8; re-encode it, for example with `iconv -f UTF-16 -t UTF-8 IN > OUT`");
  }

  // The next line without its end, valid until the next call; false at the end of the file. A line of plain text longer
  // than the limit comes in parts, of which only the last sets ended_line_.
  bool next_line(std::string_view& line) {
    const size_t limit = json_lines_ ? kMaxJsonLineBytes : kMaxTextLineBytes;
    if (ended_line_) ++line_number_, line_bytes_ = 0;
    size_t searched = 0, length = 0;
    while (true) {
      const std::string_view rest = std::string_view(buffer_).substr(begin_);
      const size_t newline = rest.find('\n', searched);
      if (newline != std::string_view::npos && newline <= limit) {
        length = newline;
        ended_line_ = true;
        break;
      }
      searched = rest.size();
      if (rest.size() > limit) {
        length = cut_long_line(rest, limit);
        ended_line_ = false;
        break;
      }
      if (!fill()) {
        if (begin_ == buffer_.size()) return false;
        length = buffer_.size() - begin_;
        ended_line_ = true;
        break;
      }
    }
    line = std::string_view(buffer_).substr(begin_, length);
    check_utf8(line);
    line_bytes_ += length;
    begin_ = std::min(begin_ + length + (ended_line_ ? 1 : 0), buffer_.size());
    if (ended_line_ && line.ends_with('\r')) line.remove_suffix(1);
    return true;
  }

  // Bytes of a too long line that may be taken now: up to a space, which stays for the next part.
  size_t cut_long_line(std::string_view rest, size_t limit) const {
    SY_CHECK(!json_lines_, name_, ":", line_number_, ": a JSON line of more than ", limit >> 20,
             " MiB; split the document");
    const size_t space = rest.substr(0, limit).find_last_of(" \t");
    SY_CHECK(space != std::string_view::npos && space > 0, name_, ":", line_number_, ": more than ", limit >> 20,
             " MiB without a space or line end; is this text? Put in line ends, for example with `fold -s`");
    return space;
  }

  void check_utf8(std::string_view line) const {
    const size_t at = find_invalid_utf8(line);
    if (at == line.size()) return;
    static constexpr char kDigits[] = "0123456789abcdef";
    const auto byte = static_cast<unsigned char>(line[at]);
    throw Error(join(name_, ":", line_number_, ": not UTF-8: byte 0x", kDigits[byte >> 4], kDigits[byte & 15],
                     " at byte ", line_bytes_ + at + 1,
                     " of the line; re-encode the file, for example with `iconv -f LATIN1 -t UTF-8 IN > OUT`"));
  }

  std::optional<std::string> next_json() {
    std::string_view line;
    while (next_line(line)) {
      if (is_blank(line)) continue;
      document_line_ = line_number_;
      const Json json = parse_json(line, place());
      SY_CHECK(json.is_object(), place(), ": expected a JSON object with the field \"text\", got ", json.type_name());
      const auto text = json.find("text");
      SY_CHECK(text != json.end(), place(), ": no field \"text\" in this object", first_keys(json));
      if (text->is_null()) {
        if (num_null_texts_++ == 0) first_null_text_ = place();
        continue;
      }
      SY_CHECK(text->is_string(), place(), ": field \"text\" is ", text->type_name(), ", expected a string");
      const auto& document = text->get_ref<const std::string&>();
      if (!is_blank(document)) return document;
    }
    return std::nullopt;
  }

  static std::string first_keys(const Json& json) {
    std::string keys;
    int num_keys = 0;
    for (const auto& [key, value] : json.items()) {
      if (++num_keys > 8) break;
      keys += (keys.empty() ? "" : ", ") + key.substr(0, 40);
    }
    return keys.empty() ? "" : " (it has " + keys + ")";
  }

  std::optional<std::string> next_text() {
    std::string document;
    bool has_text = false, at_line_start = true;
    document_line_ = 0;
    std::string_view line;
    while (next_line(line)) {
      const bool blank = is_blank(line);
      if (!blank && !has_text) document_line_ = line_number_;
      has_text |= !blank;
      if (!has_text) continue;
      if (at_line_start && !document.empty()) document += '\n';
      document += line;
      at_line_start = ended_line_;
      if ((blank && document.size() >= kDocumentBytes) || document.size() >= kMaxDocumentBytes) break;
    }
    if (!has_text) return std::nullopt;
    while (!document.empty() && is_blank({&document.back(), 1})) document.pop_back();
    return document;
  }

  CompressedInput input_;
  std::string name_;
  bool json_lines_;
  std::string buffer_;
  size_t begin_ = 0;         // of the unread part of buffer_
  bool ended_line_ = true;   // the last next_line() reached a line end
  int64_t line_number_ = 0;  // of the line last given
  size_t line_bytes_ = 0;    // bytes of it given so far
  int64_t document_line_ = 0;
  int64_t num_null_texts_ = 0;  // lines of JSON whose "text" is null
  std::string first_null_text_;
};

TextReader::TextReader(const std::vector<fs::path>& paths, EmptyText empty_text)
    : found_any_(empty_text == EmptyText::kAllowed) {
  for (auto& file : find_text_files(paths)) files_.push_back(std::move(file));
  description_ = paths.front().string();
  if (paths.size() > 1) description_ += join(" and ", paths.size() - 1, " more");
}

TextReader::~TextReader() = default;
TextReader::TextReader(TextReader&&) noexcept = default;

std::optional<std::string> TextReader::next_document() {
  while (true) {
    if (file_ == nullptr) {
      SY_CHECK(!files_.empty() || found_any_, description_,
               ": no text in it; expected at least one line that is not blank");
      if (files_.empty()) {
        report_null_texts();
        return std::nullopt;
      }
      file_ = std::make_unique<OpenFile>(files_.front());
      files_.pop_front();
    }
    auto document = file_->next_document();
    if (document) {
      place_ = file_->place();
      found_any_ = true;
      return document;
    }
    if (num_null_texts_ == 0) first_null_text_ = file_->first_null_text();
    num_null_texts_ += file_->num_null_texts();
    file_.reset();
  }
}

void TextReader::report_null_texts() {
  if (const int64_t count = std::exchange(num_null_texts_, 0); count > 0)
    say(first_null_text_, ": \"text\" is null; ",
        count == 1 ? "this line was left out" : join(count, " such lines were left out"));
}

std::string TextReader::place() const { return place_; }

}  // namespace switchyard
