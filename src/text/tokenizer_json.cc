#include "text/tokenizer_json.h"

#include <algorithm>
#include <unordered_set>

#include "base/error.h"
#include "base/json.h"
#include "text/sentencepiece_model.h"

namespace switchyard {
namespace {

constexpr size_t kMaxContentBytes = 4096;

// The value under `key`, or null where it is absent.
const LargeJson& field(const LargeJson& object, const char* key) {
  static const LargeJson kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

AddedToken read_added_token(const LargeJson& entry, const std::string& place) {
  SY_CHECK(entry.is_object(), place, ": expected an object");
  const LargeJson &id = field(entry, "id"), &content = field(entry, "content"), &single = field(entry, "single_word");
  SY_CHECK(id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(kMaxPieces), place,
           ".id: expected a whole number from 0 to less than ", kMaxPieces);
  SY_CHECK(content.is_string() && !content.get_ref<const std::string&>().empty() &&
               content.get_ref<const std::string&>().size() <= kMaxContentBytes,
           place, ".content: expected a text of 1 to ", kMaxContentBytes, " bytes");
  SY_CHECK(single.is_null() || single.is_boolean(), place, ".single_word: expected true or false");
  return {id.get<int32_t>(), content.get<std::string>(), single.is_boolean() && single.get<bool>()};
}

std::vector<AddedToken> read_added_tokens(const LargeJson& list, const std::string& source) {
  std::vector<AddedToken> tokens;
  if (list.is_null()) return tokens;
  SY_CHECK(list.is_array() && list.size() <= static_cast<size_t>(kMaxPieces), source,
           ": added_tokens: expected a list of at most ", kMaxPieces);
  std::unordered_set<int32_t> ids;
  std::unordered_set<std::string> contents;
  for (size_t n = 0; n < list.size(); ++n) {
    const std::string place = join(source, ": added_tokens[", n, "]");
    tokens.push_back(read_added_token(list[n], place));
    SY_CHECK(ids.insert(tokens.back().id).second, place, ".id: ", tokens.back().id, " stands twice");
    SY_CHECK(contents.insert(tokens.back().content).second, place, ".content: \"", tokens.back().content.substr(0, 80),
             "\" stands twice");
  }
  std::sort(tokens.begin(), tokens.end(), [](const auto& left, const auto& right) { return left.id < right.id; });
  return tokens;
}

// Strict: whole groups of four, '=' only at the end.
std::string decode_base64(const std::string& text, const std::string& place) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto check = [&](bool good) { SY_CHECK(good, place, ": not base64"); };
  check(text.size() % 4 == 0);
  std::string bytes;
  for (size_t at = 0; at < text.size(); at += 4) {
    uint32_t group = 0;
    size_t padding = 0;
    for (size_t i = 0; i < 4; ++i) {
      const size_t digit = kDigits.find(text[at + i]);
      const bool is_padding = text[at + i] == '=' && i >= 2 && at + 4 == text.size();
      check(is_padding || (digit != kDigits.npos && padding == 0));
      padding += is_padding ? 1 : 0;
      group = group << 6 | static_cast<uint32_t>(is_padding ? 0 : digit);
    }
    for (size_t i = 0; i < 3 - padding; ++i) bytes += static_cast<char>(group >> (16 - 8 * i));
  }
  return bytes;
}

// The rules of {"type": "Precompiled"}, alone or in a {"type": "Sequence"}.
std::string read_rules(const LargeJson& normalizer, const std::string& source) {
  if (!normalizer.is_object()) return "";
  const LargeJson &rules = field(normalizer, "precompiled_charsmap"), &parts = field(normalizer, "normalizers");
  if (rules.is_string()) return decode_base64(rules.get<std::string>(), source + ": normalizer.precompiled_charsmap");
  if (parts.is_array())
    for (const auto& part : parts)
      if (auto found = read_rules(part, source); !found.empty()) return found;
  return "";
}

void read_unigram(const LargeJson& model, const std::string& source, TokenizerJson& out) {
  const LargeJson &vocab = field(model, "vocab"), &unk_id = field(model, "unk_id"),
                  &bytes = field(model, "byte_fallback");
  SY_CHECK(vocab.is_array() && vocab.size() <= static_cast<size_t>(kMaxPieces), source,
           ": model.vocab: expected a list of at most ", kMaxPieces);
  for (const auto& entry : vocab) {
    SY_CHECK(entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_number(), source,
             ": model.vocab[", out.pieces.size(), "]: expected [piece, score]");
    out.pieces.emplace_back(entry[0].get<std::string>(), entry[1].get<double>());
  }
  SY_CHECK(unk_id.is_number_unsigned() && unk_id.get<uint64_t>() < out.pieces.size(), source,
           ": model.unk_id: expected a piece's number");
  out.unk_id = unk_id.get<int32_t>();
  out.byte_fallback = bytes.is_boolean() && bytes.get<bool>();
}

}  // namespace

TokenizerJson read_tokenizer_json(std::string_view bytes, const std::string& source) {
  SY_CHECK(bytes.size() <= kMaxTokenizerJsonBytes, source, ": ", bytes.size(), " bytes, expected at most ",
           kMaxTokenizerJsonBytes);
  const LargeJson document = parse_large_json(bytes, source);
  SY_CHECK(document.is_object(), source, ": expected a JSON object");
  TokenizerJson tokenizer;
  tokenizer.added_tokens = read_added_tokens(field(document, "added_tokens"), source);
  const LargeJson& model = field(document, "model");
  // Files from before tokenizers 0.10 name no type.
  if (model.is_object() && (field(model, "type") == "Unigram" || field(model, "vocab").is_array()))
    read_unigram(model, source, tokenizer);
  tokenizer.normalization_rules = read_rules(field(document, "normalizer"), source);
  return tokenizer;
}

std::string sentencepiece_model_of(const TokenizerJson& tokenizer, const std::string& source) {
  SY_CHECK(!tokenizer.pieces.empty(), source,
           ": no Unigram model in it; expected the tokenizer of a T5, mT5 or Switch model, or spiece.model beside it");
  auto pieces = tokenizer.pieces;
  const auto is_sentinel = [&](size_t id) {
    const auto& added = tokenizer.added_tokens;
    const auto found = std::lower_bound(added.begin(), added.end(), static_cast<int32_t>(id),
                                        [](const AddedToken& token, int32_t wanted) { return token.id < wanted; });
    return found != added.end() && static_cast<size_t>(found->id) == id && found->content == pieces[id].first &&
           found->content.starts_with("<extra_id_");
  };
  while (!pieces.empty() && is_sentinel(pieces.size() - 1)) pieces.pop_back();
  return make_unigram_model(pieces, tokenizer.unk_id, tokenizer.byte_fallback, tokenizer.normalization_rules);
}

}  // namespace switchyard
