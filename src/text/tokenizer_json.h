// tokenizer.json, the file of Hugging Face's tokenizers library: the tokens that were added to a vocabulary, and the
// unigram model itself, which is all that transformers writes since version 5.
//
// What T5's tokenizers do beside the two (normaliser, pre-tokenizer, post-processor, decoder) is SentencePiece's own
// behaviour; of it only the compiled rules of the normaliser are read.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace switchyard {

inline constexpr uint64_t kMaxTokenizerJsonBytes = uint64_t{64} << 20;  // umT5's takes 17 MB

// A text that always becomes one id, as it stands. Of tokenizer.json's flags one matters here: white space beside a
// token (lstrip, rstrip) is part of no piece anyway, and all added tokens print (special).
struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool single_word = false;  // only where no letter, digit or '_' stands beside it
};

struct TokenizerJson {
  std::vector<AddedToken> added_tokens;                // by id
  std::vector<std::pair<std::string, double>> pieces;  // of a Unigram model, with their scores; else none
  int32_t unk_id = -1;
  bool byte_fallback = false;
  std::string normalization_rules;  // SentencePiece's compiled table, or ""
};

// Throws Error naming `source` and the key if the bytes are too many or not JSON, what is read has another form, or an
// added token's id or content stands twice.
TokenizerJson read_tokenizer_json(std::string_view bytes, const std::string& source);

// The same unigram vocabulary as a SentencePiece model, without the sentinels that stand among the added tokens. Throws
// Error naming `source` if there is none.
std::string sentencepiece_model_of(const TokenizerJson& tokenizer, const std::string& source);

}  // namespace switchyard
