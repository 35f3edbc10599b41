#include "cli/gguf_vocabulary.h"

#include "base/error.h"
#include "text/sentencepiece_model.h"
#include "text/vocabulary.h"

namespace switchyard {
namespace {

enum PieceType : int64_t { kUserDefined = 4, kUnused = 5 };
constexpr double kSentinelScore = -1000.0, kUnusedScore = -10000.0;  // llama.cpp's converter's

}  // namespace

GgufVocabulary gguf_vocabulary(const std::string& sentencepiece_model, int64_t num_rows) {
  GgufVocabulary listed;
  if (sentencepiece_model.empty()) return listed;
  const auto info = inspect_sentencepiece_model(sentencepiece_model, "vocabulary");
  const auto vocabulary = Vocabulary::from_bytes(sentencepiece_model);
  const auto add = [&](std::string text, double score, int64_t type) {
    listed.tokens.push_back(std::move(text));
    listed.scores.push_back(score);
    listed.types.push_back(type);
  };
  auto list = list_pieces(sentencepiece_model, "vocabulary");
  for (auto& piece : list.pieces) add(std::move(piece.text), piece.score, piece.type);
  for (auto id = static_cast<int32_t>(listed.tokens.size()); id < vocabulary.size(); ++id)
    add(vocabulary.piece(id), kSentinelScore, kUserDefined);
  for (auto id = static_cast<int64_t>(listed.tokens.size()); id < num_rows; ++id)
    add(join("[PAD", id, "]"), kUnusedScore, kUnused);
  listed.normalization_rules = std::move(list.normalization_rules);
  listed.add_space_prefix = info.add_dummy_prefix;
  listed.remove_extra_whitespaces = info.remove_extra_whitespaces;
  listed.unknown_id = vocabulary.unk_id();
  return listed;
}

std::string sentencepiece_model_of(const GgufVocabulary& vocabulary, const std::string& source) {
  if (vocabulary.tokens.empty()) return "";
  size_t count = vocabulary.tokens.size();
  while (count > 0 && (vocabulary.types[count - 1] == kUnused || vocabulary.types[count - 1] == kUserDefined)) --count;
  SY_CHECK(vocabulary.unknown_id >= 0 && static_cast<size_t>(vocabulary.unknown_id) < count, source,
           ": the unknown token's id is ", vocabulary.unknown_id, ", expected one of ", count, " pieces");
  std::vector<std::pair<std::string, double>> pieces;
  for (size_t id = 0; id < count; ++id) pieces.emplace_back(vocabulary.tokens[id], vocabulary.scores[id]);
  auto model = make_unigram_model(pieces, static_cast<int32_t>(vocabulary.unknown_id), /*byte_fallback=*/false,
                                  vocabulary.normalization_rules);
  if (!vocabulary.add_space_prefix) model = without_dummy_prefix(model);
  inspect_sentencepiece_model(model, source);
  return model;
}

}  // namespace switchyard
