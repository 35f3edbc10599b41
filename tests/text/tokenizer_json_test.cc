#include "text/tokenizer_json.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "base/files.h"
#include "text/scratch.h"
#include "text/sentencepiece_model.h"
#include "text/vocabulary.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Ids = std::vector<int32_t>;

// A unigram model of nine pieces, as tokenizer.json has it; ids 9 and 10 are the sentinels 1 and 0.
std::string tokenizer_json(const std::string& more_tokens = "", const std::string& more_pieces = "") {
  return R"({"version": "1.0", "added_tokens": [
      {"id": 0, "content": "<pad>", "special": true, "single_word": false, "lstrip": false},
      {"id": 1, "content": "</s>", "special": true},
      {"id": 9, "content": "<extra_id_1>"}, {"id": 10, "content": "<extra_id_0>"})" +
         more_tokens + R"(],
    "normalizer": null,
    "model": {"type": "Unigram", "unk_id": 2, "vocab": [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["\u2581", -2.0],
      ["a", -1.5], ["b", -1.5], ["\u2581a", -1.0], ["\u2581b", -1], ["ab", -1.25], ["<extra_id_1>", 0.0], ["<extra_id_0>", 0.0])" +
         more_pieces + "]}}";
}

Vocabulary vocabulary_with(const std::string& more_tokens) {
  ScratchFolder folder;
  write_file_atomically(folder.path() / "tokenizer.json", tokenizer_json(more_tokens));
  return Vocabulary::load(folder.path());
}

TEST(TokenizerJson, AloneItIsTheVocabulary) {
  const auto vocabulary = vocabulary_with("");
  EXPECT_EQ(vocabulary.size(), 11);
  EXPECT_EQ(vocabulary.num_sentinels(), 2);
  EXPECT_EQ((std::vector{vocabulary.pad_id(), vocabulary.eos_id(), vocabulary.unk_id()}), (std::vector{0, 1, 2}));
  EXPECT_THAT(vocabulary.encode("a bab"), ElementsAre(6, 7, 8));
  EXPECT_EQ(vocabulary.decode(Ids{6, 7, 8, 1}), "a bab");
  EXPECT_THAT(vocabulary.encode("a<extra_id_0> b"), ElementsAre(6, 10, 7));
  // Its SentencePiece model is a vocabulary of its own.
  const auto copy = Vocabulary::from_bytes(vocabulary.model_bytes(), 2);
  EXPECT_EQ(copy.encode("ab <extra_id_1>"), vocabulary.encode("ab <extra_id_1>"));
}

TEST(TokenizerJson, AddedTokensAreOneIdAndPrintAsTheyStand) {
  const auto vocabulary =
      vocabulary_with(R"(, {"id": 11, "content": "{"}, {"id": 12, "content": "\n"}, {"id": 14, "content": "{{"})");
  EXPECT_EQ(vocabulary.size(), 15);
  EXPECT_EQ(vocabulary.num_sentinels(), 2);
  EXPECT_EQ(vocabulary.sentinel_id(0), 10);
  EXPECT_EQ(vocabulary.sentinel_number(9), 1);
  EXPECT_EQ(vocabulary.sentinel_number(11), -1);
  EXPECT_EQ(vocabulary.piece(14), "{{");
  EXPECT_EQ(vocabulary.piece(13), vocabulary.piece(2)) << "an id between them is no token";
  EXPECT_THAT(vocabulary.encode("a {b{{{\nab"), ElementsAre(6, 11, 5, 14, 11, 12, 8)) << "the longest is taken";
  EXPECT_EQ(vocabulary.decode(Ids{6, 11, 5, 14, 11, 12, 8}), "a{b{{{\nab");
  EXPECT_EQ(vocabulary.decode(Ids{11, 7, 11, 10, 6}), "{ b{ <extra_id_0> a");
}

TEST(TokenizerJson, SingleWordsAreNotFoundInsideOthers) {
  const auto vocabulary = vocabulary_with(R"(, {"id": 11, "content": "ba", "single_word": true})");
  EXPECT_THAT(vocabulary.encode("ba"), ElementsAre(11));
  EXPECT_THAT(vocabulary.encode("a ba, ba"), ElementsAre(6, 11, 2, 11));
  EXPECT_THAT(vocabulary.encode("bab aba"), ElementsAre(7, 8, 6, 5, 4));
  EXPECT_THAT(vocabulary.encode("ba\u00e9"), ElementsAre(7, 4, 2));
}

TEST(TokenizerJson, StandsBesideSpieceModel) {
  ScratchFolder folder;
  write_file_atomically(folder.path() / "spiece.model", vocabulary_with("").model_bytes());
  EXPECT_EQ(Vocabulary::load(folder.path()).num_sentinels(), 100) << "without the file T5's number";
  const std::string added = R"({"added_tokens": [{"id": 9, "content": "<sep>"}]})";
  write_file_atomically(folder.path() / "tokenizer.json", added);
  const auto vocabulary = Vocabulary::load(folder.path());
  EXPECT_EQ(vocabulary.num_sentinels(), 0) << "the token lies where sentinels would";
  EXPECT_EQ(vocabulary.size(), 10);
  EXPECT_THAT(vocabulary.encode("a <sep> b<extra_id_0>").size(), testing::Gt(3u));
  EXPECT_EQ(vocabulary.decode(vocabulary.encode("a<sep> b")), "a<sep> b");
}

TEST(TokenizerJson, RefusesWhatItCannotMean) {
  const auto refusal = [](const std::string& json) {
    try {
      ScratchFolder folder;
      write_file_atomically(folder.path() / "tokenizer.json", json);
      Vocabulary::load(folder.path());
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  const auto token = [](const std::string& text) { return tokenizer_json(", " + text); };
  EXPECT_THAT(refusal("{"), HasSubstr("tokenizer.json: not JSON"));
  EXPECT_THAT(refusal("[]"), HasSubstr("JSON object"));
  EXPECT_THAT(refusal(std::string(200, '[')), HasSubstr("nested"));
  EXPECT_THAT(refusal("{}"), HasSubstr("no Unigram model"));
  EXPECT_THAT(refusal(R"({"model": {"type": "BPE", "vocab": {}}})"), HasSubstr("no Unigram model"));
  EXPECT_THAT(refusal(R"({"model": {"type": "Unigram", "unk_id": 5, "vocab": [["a", 0]]}})"), HasSubstr("unk_id"));
  EXPECT_THAT(refusal(R"({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a"]]}})"), HasSubstr("model.vocab[0]"));
  EXPECT_THAT(refusal(R"({"added_tokens": {}})"), HasSubstr("added_tokens: expected a list"));
  EXPECT_THAT(refusal(token("7")), HasSubstr("added_tokens[4]: expected an object"));
  EXPECT_THAT(refusal(token(R"({"content": "x"})")), HasSubstr("added_tokens[4].id"));
  EXPECT_THAT(refusal(token(R"({"id": -1, "content": "x"})")), HasSubstr("added_tokens[4].id"));
  EXPECT_THAT(refusal(token(R"({"id": 1e3, "content": "x"})")), HasSubstr("added_tokens[4].id"));
  EXPECT_THAT(refusal(token(R"({"id": 99999999999, "content": "x"})")), HasSubstr("added_tokens[4].id"));
  EXPECT_THAT(refusal(token(R"({"id": 11, "content": ""})")), HasSubstr("added_tokens[4].content"));
  EXPECT_THAT(refusal(token(R"({"id": 11, "content": "x", "single_word": 1})")), HasSubstr("single_word"));
  EXPECT_THAT(refusal(token(R"({"id": 10, "content": "x"})")), HasSubstr("10 stands twice"));
  EXPECT_THAT(refusal(token(R"({"id": 11, "content": "<pad>"})")), HasSubstr("\"<pad>\" stands twice"));
  EXPECT_THAT(refusal(token(R"({"id": 12, "content": "<extra_id_2>"})")), HasSubstr("<extra_id_"));
  const std::string rules = R"({"normalizer": {"type": "Precompiled", "precompiled_charsmap": ")";
  for (const char* text : {"abc", "a=bc", "ab*=", "===="})
    EXPECT_THAT(refusal(rules + text + "\"}}"), HasSubstr("base64"));
  // A table that is base64, but broken: SentencePiece would walk out of it.
  std::string broken = tokenizer_json();
  broken.replace(broken.find("null"), 4, R"({"type": "Precompiled", "precompiled_charsmap": "CAAAAP////8AAAAAAA=="})");
  EXPECT_THAT(refusal(broken), HasSubstr("normalisation rules"));
}

}  // namespace
}  // namespace switchyard
