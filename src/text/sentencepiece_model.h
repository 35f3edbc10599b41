// A SentencePiece model file as bytes: what must be checked before the library may have them, and the two variants of
// it that a T5 vocabulary needs.
//
// The library trusts parts of its file: it walks the double-array trie of the normalisation rules without bounds. This
// file reads the protobuf encoding directly (the library ships no header for its messages) and refuses what would
// crash.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace switchyard {

inline constexpr uint64_t kMaxVocabularyBytes = uint64_t{64} << 20;  // mT5's 250,000 pieces take 4.3 MB
inline constexpr int32_t kMaxPieces = 1 << 22;

struct SentencePieceModelInfo {
  int32_t num_pieces = 0;
  int32_t num_own_sentinels = 0;  // trailing pieces <extra_id_{n-1}> ... <extra_id_0>, as in mT5's file
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
};

// Reads and checks the bytes. Throws Error naming `source` if they are not a SentencePiece model, are damaged, or hold
// something the library would trip over: a broken trie, a score that is not finite, too many pieces.
SentencePieceModelInfo inspect_sentencepiece_model(std::string_view bytes, const std::string& source);

// What a model says of each of its pieces.
struct ListedPiece {
  std::string text;
  float score = 0.0F;
  int32_t type = 1;  // 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
};
struct PieceList {
  std::vector<ListedPiece> pieces;
  std::string normalization_rules;  // the compiled table, or ""
};
PieceList list_pieces(std::string_view bytes, const std::string& source);  // of bytes that were inspected

// The model with `count` user-defined pieces "▁<extra_id_{count-1}>" ... "▁<extra_id_0>" after its own (as seqio's
// SentencePieceVocabulary makes it), and without the self-test samples, which would then no longer hold.
std::string with_sentinels(std::string_view bytes, int32_t count);

// A unigram model of pieces and scores, normalised as T5's is, with <pad>, </s> and <s> as control pieces. Nothing is
// checked: inspect_sentencepiece_model does that.
std::string make_unigram_model(const std::vector<std::pair<std::string, double>>& pieces, int32_t unk_id,
                               bool byte_fallback, std::string_view normalization_rules);

// The model that does not put a space in front of the text.
std::string without_dummy_prefix(std::string_view bytes);

}  // namespace switchyard
