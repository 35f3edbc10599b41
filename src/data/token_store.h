// The tokens of a corpus as one long sequence, made once and mapped from disk afterwards.
//
// Documents follow each other in order with nothing between: T5's pre-training concatenates them without EOS and cuts
// the sequence into segments; EOS enters after span corruption.
//
// Every text file has its own file in the cache folder, so adding a file costs that file only. It is used again as long
// as path, size and time of modification of the text and the vocabulary are the same; a damaged or stale one is
// made anew. Processes that want the same file wait for the first to make it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

namespace switchyard {

class Vocabulary;

struct TokenStoreOptions {
  std::filesystem::path cache_folder = {};  // made if absent; empty: tokens stay in memory
  int num_threads = 0;                      // 0: one a core; the tokens do not depend on it
};

class TokenStore {
 public:
  // Files, folders, or "-" (never cached), as TextReader takes them. Throws Error as TextReader does, if there is no
  // text at all, and if the cache folder cannot be written.
  static TokenStore open(const std::vector<std::filesystem::path>& paths, const Vocabulary& vocabulary,
                         const TokenStoreOptions& options);
  static TokenStore from_tokens(std::vector<int32_t> tokens);

  int64_t size() const { return size_; }                    // tokens
  int64_t num_documents() const { return num_documents_; }  // 1 for from_tokens
  int64_t text_bytes() const { return text_bytes_; }        // UTF-8 bytes of the documents; 0 for from_tokens

  // Tokens [begin, begin + out.size()). Throws Error if they are not all there. Thread-safe.
  void read(int64_t begin, std::span<int32_t> out) const;

 private:
  struct Shard;
  void append(std::shared_ptr<const Shard> shard);

  std::vector<std::shared_ptr<const Shard>> shards_;
  std::vector<int64_t> begins_;  // first token of each shard in the sequence
  int64_t size_ = 0, num_documents_ = 0, text_bytes_ = 0;
};

}  // namespace switchyard
