#include "data/tokenization.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "text/reader.h"
#include "text/vocabulary.h"

namespace switchyard {
namespace {

// Megabytes of text in the file, where its size tells: 0 for a compressed one and for standard input.
double expected_megabytes(const std::filesystem::path& file) {
  std::error_code error;
  const auto extension = file.extension();
  if (extension == ".gz" || extension == ".zst" || !std::filesystem::is_regular_file(file, error)) return 0.0;
  const auto size = std::filesystem::file_size(file, error);
  return error ? 0.0 : static_cast<double>(size) / 1e6;
}

std::string describe(const TokenizationTotals& totals, double seconds) {
  char text[80];
  std::snprintf(text, sizeof text, "%.2f M tokens  %.1f MB/s", static_cast<double>(totals.num_tokens) / 1e6,
                static_cast<double>(totals.text_bytes) / 1e6 / seconds);
  return text;
}

// Runs work(0) ... work(count - 1) on the threads; rethrows the first exception.
void run_parallel(size_t count, size_t num_threads, const std::function<void(size_t)>& work) {
  std::atomic<size_t> next{0};
  std::vector<std::exception_ptr> failures(num_threads);
  const auto run = [&](size_t thread) {
    try {
      for (size_t item = next++; item < count; item = next++) work(item);
    } catch (...) {
      failures[thread] = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> threads;  // joined where the block ends, by an exception too
    try {
      for (size_t thread = 1; thread < std::min(num_threads, count); ++thread) threads.emplace_back(run, thread);
    } catch (const std::system_error&) {
      // The system gives no more threads: those that it gave do the work.
    }
    run(0);
  }
  for (const auto& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

// Appends the document in parts of about kPartBytes, for even work and bounded memory. A cut takes the place of one
// space or line end, which the word mark in front of every encoded text stands for: the ids are those of the whole.
void append_parts(std::string_view document, std::vector<std::string_view>& parts) {
  constexpr size_t kPartBytes = 128 << 10;
  while (document.size() > kPartBytes) {
    const size_t space = document.find_first_of(" \n", kPartBytes);
    if (space == std::string_view::npos) break;
    parts.push_back(document.substr(0, space));
    document.remove_prefix(space + 1);
  }
  parts.push_back(document);
}

}  // namespace

TokenizationTotals tokenize_file(const std::filesystem::path& file, const Vocabulary& vocabulary, int num_threads,
                                 const std::function<void(std::span<const int32_t>)>& write) {
  constexpr size_t kBlockBytes = 4 << 20;  // of text held at once
  constexpr unsigned kMaxThreads = 16;     // one thread decompresses and parses, and feeds no more than that
  const size_t num_workers = num_threads > 0 ? static_cast<size_t>(num_threads)
                                             : std::clamp(std::thread::hardware_concurrency(), 1u, kMaxThreads);
  TokenizationTotals totals;
  const double start = steady_seconds();
  Progress progress({.name = "tokenise " + file.filename().string(), .unit = "MB"}, expected_megabytes(file));
  TextReader reader({file}, TextReader::EmptyText::kAllowed);
  std::vector<std::string> documents;
  std::vector<std::string_view> parts;  // of the documents
  std::vector<std::vector<int32_t>> encoded;
  bool at_end = false;
  while (!at_end) {
    SY_CHECK(!interrupted(), "interrupted while tokenising ", file.string(), "; start again to go on");
    documents.clear();
    for (size_t bytes = 0; bytes < kBlockBytes && !at_end;) {
      auto document = reader.next_document();
      at_end = !document;
      if (at_end) break;
      bytes += document->size();
      documents.push_back(std::move(*document));
    }
    parts.clear();
    for (const auto& document : documents) append_parts(document, parts);
    encoded.assign(parts.size(), {});
    run_parallel(parts.size(), num_workers, [&](size_t part) { encoded[part] = vocabulary.encode(parts[part]); });
    for (const auto& ids : encoded) {
      write(ids);
      totals.num_tokens += static_cast<int64_t>(ids.size());
    }
    for (const auto& document : documents) totals.text_bytes += static_cast<int64_t>(document.size());
    totals.num_documents += static_cast<int64_t>(documents.size());
    progress.update(static_cast<double>(totals.text_bytes) / 1e6, describe(totals, steady_seconds() - start));
  }
  progress.finish();
  return totals;
}

}  // namespace switchyard
