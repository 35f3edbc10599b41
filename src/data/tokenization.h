// Documents of one file -> token ids, on several threads, in the order of the file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>

namespace switchyard {

class Vocabulary;

struct TokenizationTotals {
  int64_t num_tokens = 0;
  int64_t num_documents = 0;
  int64_t text_bytes = 0;  // UTF-8 bytes of the documents
};

// Calls `write` with consecutive runs of ids; documents follow each other with nothing between (T5 concatenates them
// before EOS is added). `num_threads` 0 means one a core; the result does not depend on it. A progress line
// tells how far it is if it takes more than two seconds. A file without text gives no tokens. Throws Error as
// TextReader does, and when the user interrupts.
TokenizationTotals tokenize_file(const std::filesystem::path& file, const Vocabulary& vocabulary, int num_threads,
                                 const std::function<void(std::span<const int32_t>)>& write);

}  // namespace switchyard
