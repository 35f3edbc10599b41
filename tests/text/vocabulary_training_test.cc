#include "text/vocabulary_training.h"

#include <gmock/gmock.h>

#include "base/files.h"
#include "base/random.h"
#include "text/scratch.h"
#include "text/vocabulary.h"

namespace switchyard {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string sample_text(size_t size) {
  static constexpr const char* kWords[] = {"train", "training", "switch", "yard", "expert", "router",
                                           "token", "the",      "a",      "of",   "model",  "sparse"};
  static constexpr const char* kEndings[] = {"", "", "s", "ed", "ness", "able", "ly", "ization"};
  NoiseStream noise({.seed = 1});
  std::string text;
  while (text.size() < size)
    text += std::string(kWords[noise.below(std::size(kWords))]) + kEndings[noise.below(std::size(kEndings))] +
            (noise.below(9) == 0 ? ".\n" : " ");
  return text;
}

TEST(VocabularyTraining, GivesT5sIdsAndTheAskedSize) {
  const ScratchFolder folder;
  const auto text = folder.write("text.txt", sample_text(50'000));
  const auto out = folder.path() / "spiece.model";
  train_vocabulary({.text = {text}, .size = 40, .out = out});
  const auto vocabulary = Vocabulary::load(out);
  EXPECT_EQ(vocabulary.size(), 40 + 100);
  EXPECT_EQ(vocabulary.pad_id(), 0);
  EXPECT_EQ(vocabulary.eos_id(), 1);
  EXPECT_EQ(vocabulary.unk_id(), 2);
  EXPECT_EQ(vocabulary.sentinel_id(0), 139);
  EXPECT_EQ(vocabulary.piece(0), "<pad>");
  EXPECT_EQ(vocabulary.piece(1), "</s>");
  const std::string sentence = "the sparse model of a router.";
  EXPECT_EQ(vocabulary.decode(vocabulary.encode(sentence)), sentence);
  EXPECT_LT(vocabulary.encode("training").size(), 4u) << "frequent words should be few pieces";
  // NFKC: full-width letters are the same letters.
  EXPECT_EQ(vocabulary.encode("\uff4d\uff4f\uff44\uff45\uff4c"), vocabulary.encode("model"));
}

TEST(VocabularyTraining, IsDeterministicAlsoWhenItSamples) {
  const ScratchFolder folder;
  const auto text = folder.write("text.txt", sample_text(200'000));
  const auto train = [&](int64_t max_text_bytes, int64_t seed) {
    const auto out = folder.path() / "spiece.model";
    train_vocabulary({.text = {text}, .size = 40, .out = out, .max_text_bytes = max_text_bytes, .seed = seed});
    return read_file(out);
  };
  const std::string whole = train(1'000'000, 0);
  EXPECT_EQ(whole, train(1'000'000, 0));
  const std::string sampled = train(20'000, 0);
  EXPECT_EQ(sampled, train(20'000, 0));
  EXPECT_NE(sampled, whole);
  EXPECT_NE(sampled, train(20'000, 1));
}

TEST(VocabularyTraining, ExplainsWhatTheTextCannotGive) {
  const ScratchFolder folder;
  const auto out = folder.path() / "spiece.model";
  const auto message = [&](const std::string& text, int64_t size) {
    const auto path = folder.write("text.txt", text);
    return error_of([&] { train_vocabulary({.text = {path}, .size = size, .out = out}); });
  };
  EXPECT_THAT(message(sample_text(20'000), 30'000),
              AllOf(HasSubstr("too little text for 30000 pieces"), HasSubstr("--size ")));
  EXPECT_THAT(message(sample_text(20'000), 10),
              AllOf(HasSubstr("10 pieces are too few"), HasSubstr("--character-coverage")));
  EXPECT_THAT(message("", 100), HasSubstr("no text in it"));
  EXPECT_THAT(message("text", 3), HasSubstr("vocabulary size 3"));
  // Texts of next to nothing must end in a message too, not in the library's abort.
  for (const std::string tiny :
       {"a", "a b", "\u2581", "\u3000", "\t", "..", "\U0001F917", "a\n\nb\n", std::string("\0", 1).c_str()}) {
    const auto path = folder.write("tiny.txt", tiny + "\nx");
    EXPECT_FALSE(error_of([&] { train_vocabulary({.text = {path}, .size = 5000, .out = out}); }).empty()) << tiny;
  }
  EXPECT_FALSE(std::filesystem::exists(out));
}

TEST(VocabularyTraining, TakesLongLinesAndDocumentsWithoutSpaces) {
  const ScratchFolder folder;
  std::string chinese;
  NoiseStream noise({.seed = 2});
  static constexpr const char* kCharacters[] = {"\u4f60", "\u597d", "\u4e16", "\u754c", "\u6a21", "\u578b"};
  for (int count = 0; count < 20'000; ++count) chinese += kCharacters[noise.below(6)];
  const auto text = folder.write("zh.txt", chinese);
  const auto out = folder.path() / "zh.model";
  train_vocabulary({.text = {text}, .size = 40, .out = out, .character_coverage = 1.0});
  const auto vocabulary = Vocabulary::load(out);
  const std::string phrase = "\u4f60\u597d\u4e16\u754c";
  EXPECT_EQ(vocabulary.decode(vocabulary.encode(phrase)), phrase);
}

TEST(VocabularyTraining, FallsBackToBytes) {
  const ScratchFolder folder;
  const auto text = folder.write("text.txt", sample_text(50'000));
  const auto out = folder.path() / "spiece.model";
  train_vocabulary({.text = {text}, .size = 300, .out = out, .byte_fallback = true});
  const auto vocabulary = Vocabulary::load(out);
  EXPECT_EQ(vocabulary.size(), 300 + 100);
  const std::string unseen = "the \u0436\u4e16 of \U0001F917";
  EXPECT_EQ(vocabulary.decode(vocabulary.encode(unseen)), unseen);
}

// A small language beside a large one: by size a five hundredth of the sample is its own, with a low exponent much
// more.
TEST(VocabularyTraining, AnExponentRaisesSmallFiles) {
  const ScratchFolder folder;
  std::string small;
  for (int n = 0; n < 200; ++n) small += n % 10 == 9 ? "zoveel\n" : "zoveel ";
  std::filesystem::create_directory(folder.path() / "text");
  folder.write("text/large.txt", sample_text(700'000));
  folder.write("text/small.txt", small);
  const auto pieces = [&](double exponent, int64_t max_text_bytes) {
    const auto out = folder.path() / "spiece.model";
    train_vocabulary({.text = {folder.path() / "text"},
                      .size = 60,
                      .out = out,
                      .max_text_bytes = max_text_bytes,
                      .exponent = exponent});
    return Vocabulary::load(out).encode("zoveel").size();
  };
  EXPECT_EQ(pieces(0.3, 20'000), 1u);
  EXPECT_GT(pieces(1.0, 20'000), 1u);
  EXPECT_EQ(pieces(0.3, 10'000'000), pieces(1.0, 10'000'000)) << "a limit that all fits in leaves nothing out";
  EXPECT_THAT(error_of([&] { pieces(0.0, 20'000); }), HasSubstr("exponent 0"));
}

}  // namespace
}  // namespace switchyard
