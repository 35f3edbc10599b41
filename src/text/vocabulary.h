// Text <-> token ids as T5 has them: a SentencePiece model, the sentinels <extra_id_0> ... behind it, numbered
// downwards (conventions of seqio's SentencePieceVocabulary), and behind those whatever tokens a tokenizer.json adds.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_json.h"

namespace switchyard {

class Vocabulary {
 public:
  static constexpr int32_t kDefaultSentinels = 100;

  // Reads a SentencePiece model file; `num_sentinels` are appended to its pieces, unless it ends in sentinels of its
  // own (mT5's does). Of a folder, a model directory: its spiece.model and the added tokens of its tokenizer.json, or
  // both from tokenizer.json if that is all it has; as many sentinels as its tokenizer_config.json says ("extra_ids").
  // Throws Error, naming the file, if it is missing, too long or damaged, or if tokenizer.json numbers the sentinels in
  // another way.
  static Vocabulary load(const std::filesystem::path& path, int32_t num_sentinels = kDefaultSentinels);
  static Vocabulary from_bytes(std::string bytes, int32_t num_sentinels = kDefaultSentinels,
                               const std::string& source = "vocabulary", std::vector<AddedToken> added_tokens = {});

  // Ids of the text, without EOS. Every literal "<extra_id_N>", N < num_sentinels(), becomes its sentinel, every added
  // token its id (the longest where several begin), and takes the space in front of it; text that follows one without
  // a space goes on without a word mark. Thread-safe.
  std::vector<int32_t> encode(std::string_view text) const;

  // Sentinels print as " <extra_id_N>", added tokens as they stand, pad and EOS as nothing, other ids as the unknown
  // piece. Thread-safe.
  std::string decode(std::span<const int32_t> ids) const;

  int32_t size() const;  // one more than the highest id; a model's embedding may have more rows
  int32_t num_sentinels() const;
  int32_t sentinel_id(int32_t number) const;  // throws Error if there is no such sentinel
  int32_t sentinel_number(int32_t id) const;  // -1 if the id is no sentinel's
  int32_t pad_id() const;                     // -1 if the model has none; T5: 0
  int32_t eos_id() const;                     // -1 if the model has none; T5: 1
  int32_t unk_id() const;                     // T5: 2
  std::string piece(int32_t id) const;     // "▁the"; "<extra_id_N>"; an added token; the unknown piece for other ids
  const std::string& model_bytes() const;  // of the SentencePiece model, as read
  const std::vector<AddedToken>& added_tokens() const;  // without sentinels, <pad>, </s> and <unk>; by id

 private:
  struct State;
  explicit Vocabulary(std::shared_ptr<const State> state);
  std::shared_ptr<const State> state_;  // shared, never changed: copies are cheap
};

}  // namespace switchyard
