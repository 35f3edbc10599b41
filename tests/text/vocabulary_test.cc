#include "text/vocabulary.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <thread>

#include "base/config.h"
#include "base/files.h"
#include "base/random.h"
#include "text/compressed_input.h"
#include "text/scratch.h"
#include "text/vocabulary_training.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<int32_t>;

std::filesystem::path model_path(const std::string& name) {
  return data_folder() / "testvectors/sentencepiece" / (name + ".model");
}

std::string read_whole(const std::filesystem::path& path) {
  CompressedInput input(path);
  std::string text, buffer(1 << 16, '\0');
  while (const size_t count = input.read(buffer.data(), buffer.size())) text.append(buffer, 0, count);
  return text;
}

class Golden : public testing::TestWithParam<std::pair<const char*, int>> {};

// Encodings and decodings of SentencePiece's own programs.
TEST_P(Golden, EqualsSentencePiece) {
  SKIP_WITHOUT_DATA();
  const auto [name, num_lines] = GetParam();
  const auto vocabulary = Vocabulary::load(model_path(name));
  const std::string golden =
      read_whole(data_folder() / "testvectors/sentencepiece" / ("golden_" + std::string(name) + ".jsonl.gz"));
  int count = 0;
  size_t begin = 0;
  while (begin < golden.size()) {
    const size_t end = golden.find('\n', begin);
    const Json line = parse_json(golden.substr(begin, end - begin), "golden");
    begin = end + 1;
    ++count;
    const auto text = line["text"].get<std::string>();
    const auto ids = line["ids"].get<Ids>();
    EXPECT_EQ(vocabulary.encode(text), ids) << text;
    EXPECT_EQ(vocabulary.decode(ids), line["decoded"].get<std::string>()) << text;
    if (line.contains("pieces")) {
      const auto pieces = line["pieces"].get<std::vector<std::string>>();
      for (size_t at = 0; at < ids.size(); ++at) {
        if (ids[at] != vocabulary.unk_id()) {
          EXPECT_EQ(vocabulary.piece(ids[at]), pieces[at]);
        }
      }
    }
  }
  EXPECT_EQ(count, num_lines);
}

INSTANTIATE_TEST_SUITE_P(Models, Golden,
                         testing::Values(std::pair("seqio_test", 135), std::pair("spm_test_model", 535),
                                         std::pair("spm_test_ja_model", 335)),
                         [](const auto& parameter) { return std::string(parameter.param.first); });

// seqio's own tests of SentencePieceVocabulary.
TEST(Vocabulary, EqualsSeqio) {
  SKIP_WITHOUT_DATA();
  const auto plain = Vocabulary::load(model_path("seqio_test"), 0);
  EXPECT_EQ(plain.size(), 26);
  EXPECT_THAT(plain.encode("this is a test"), ElementsAre(11, 8, 6, 3, 8, 6, 3, 5, 10));
  EXPECT_EQ(plain.decode(Ids{11, 8, 6, 3, 8, 6, 3, 5, 10}), "this is a test");
  EXPECT_EQ(plain.decode(plain.encode("a a  a   a")), "a a a a");
  const auto vocabulary = Vocabulary::load(model_path("seqio_test"), 10);
  EXPECT_EQ(vocabulary.size(), 36);
  const std::string text = "<extra_id_0> <extra_id_1> v <extra_id_9>";
  EXPECT_THAT(vocabulary.encode(text), ElementsAre(35, 34, 3, 25, 26));
  EXPECT_EQ(vocabulary.decode(Ids{35, 34, 3, 25, 26}), text);
}

TEST(Vocabulary, SentinelsKeepTheTextAroundThem) {
  SKIP_WITHOUT_DATA();
  const auto vocabulary = Vocabulary::load(model_path("spm_test_model"));
  EXPECT_EQ(vocabulary.size(), 1100);
  const auto encode = [&](const std::string& text) {
    std::vector<std::string> pieces;
    for (const int32_t id : vocabulary.encode(text)) pieces.push_back(vocabulary.piece(id));
    return pieces;
  };
  EXPECT_EQ(vocabulary.encode("<extra_id_99>"), Ids{1000});
  // A space before a sentinel belongs to it; the one after it marks the next word.
  const auto spaced = encode("I saw a <extra_id_0> on the hill");
  EXPECT_EQ(spaced, encode("I saw a<extra_id_0> on the hill"));
  EXPECT_EQ(spaced, encode("  I saw a   <extra_id_0>  on the  hill "));
  EXPECT_THAT(spaced, ElementsAre("\u2581I", "\u2581saw", "\u2581a", "<extra_id_0>", "\u2581on", "\u2581the",
                                  "\u2581hi", "ll"));
  // Without a space the word goes on: no word mark.
  EXPECT_THAT(encode("the<extra_id_1>ing"), ElementsAre("\u2581the", "<extra_id_1>", "ing"));
  EXPECT_THAT(encode("<extra_id_2>\u3000the"), ElementsAre("<extra_id_2>", "\u2581the"));
  EXPECT_EQ(vocabulary.decode(vocabulary.encode("a<extra_id_0>, the")), "a <extra_id_0>, the");
  // No sentinels: numbers out of range, leading zeros, cut forms.
  for (const std::string text : {"<extra_id_100>", "<extra_id_00>", "<extra_id_01>", "<extra_id_>", "<extra_id_5",
                                 "<extra_id_99999999999999999999>"}) {
    for (const int32_t id : vocabulary.encode(text)) EXPECT_LT(id, 1000) << text;
  }
  for (int32_t number = 0; number < 100; ++number) {
    const std::string text = join("<extra_id_", number, ">");
    EXPECT_EQ(vocabulary.encode("the " + text + "<extra_id_3>").at(1), vocabulary.sentinel_id(number));
    EXPECT_EQ(vocabulary.decode(Ids{vocabulary.sentinel_id(number)}), text);
  }
  EXPECT_THROW(vocabulary.sentinel_id(100), Error);
  EXPECT_THROW(vocabulary.sentinel_id(-1), Error);
}

TEST(Vocabulary, DecodesSpecialAndForeignIds) {
  SKIP_WITHOUT_DATA();
  const auto vocabulary = Vocabulary::load(model_path("seqio_test"));
  EXPECT_EQ(vocabulary.pad_id(), 0);
  EXPECT_EQ(vocabulary.eos_id(), 1);
  EXPECT_EQ(vocabulary.unk_id(), 2);
  EXPECT_EQ(vocabulary.decode(Ids{11, 8, 6, 1, 0, 0}), "this");
  EXPECT_EQ(vocabulary.decode(Ids{}), "");
  const std::string unknown = vocabulary.decode(Ids{11, 2});
  EXPECT_EQ(unknown, "th \u2047 ");
  for (const int32_t id : {126, 127, INT32_MAX, -1, INT32_MIN})
    EXPECT_EQ(vocabulary.decode(Ids{11, id}), unknown) << id;
  EXPECT_EQ(vocabulary.piece(126), "<unk>");
  EXPECT_EQ(vocabulary.model_bytes(), read_file(model_path("seqio_test")));
}

// mT5's file has its sentinels inside; none may be added a second time.
TEST(Vocabulary, FindsTheModelsOwnSentinels) {
  SKIP_WITHOUT_DATA();
  std::string bytes = read_file(model_path("seqio_test"));
  for (int number = 4; number >= 0; --number) {
    const std::string text = join("\u2581<extra_id_", number, ">");
    const std::string piece =
        std::string("\x0a") + static_cast<char>(text.size()) + text + std::string("\x15\0\0\0\0\x18\x04", 7);
    bytes += std::string("\x0a") + static_cast<char>(piece.size()) + piece;
  }
  const auto vocabulary = Vocabulary::from_bytes(bytes);
  EXPECT_EQ(vocabulary.size(), 31);
  EXPECT_EQ(vocabulary.num_sentinels(), 5);
  EXPECT_THAT(vocabulary.encode("<extra_id_0> <extra_id_4> v"), ElementsAre(30, 26, 3, 25));
}

TEST(Vocabulary, IsTheSameFromManyThreads) {
  SKIP_WITHOUT_DATA();
  const auto vocabulary = Vocabulary::load(model_path("spm_test_model"));
  const std::string text = "the quick<extra_id_0>brown fox <extra_id_1> jumped";
  const auto expected = Vocabulary::load(model_path("spm_test_model")).encode(text);
  std::vector<Ids> results(8);
  std::vector<std::thread> threads;
  for (auto& result : results) threads.emplace_back([&] { result = vocabulary.encode(text); });
  for (auto& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result, expected);
}

TEST(Vocabulary, RefusesWhatIsNoModel) {
  const ScratchFolder folder;
  EXPECT_THAT(error_of([&] { Vocabulary::load(folder.path() / "absent.model"); }), HasSubstr("absent.model"));
  EXPECT_THAT(error_of([&] { Vocabulary::load(folder.path()); }), HasSubstr("neither spiece.model"));
  EXPECT_THAT(error_of([&] { Vocabulary::load(folder.write("empty.model", "")); }),
              HasSubstr("empty.model: the file is empty"));
  EXPECT_THAT(
      error_of([&] { Vocabulary::load(folder.write("text.model", "version https://git-lfs.github.com/spec/v1\n")); }),
      HasSubstr("text.model"));
  const auto large = folder.write("large.model", "x");
  std::filesystem::resize_file(large, uint64_t{3} << 30);  // sparse: takes no space
  EXPECT_THAT(error_of([&] { Vocabulary::load(large); }), HasSubstr("expected at most"));
}

// Uses a vocabulary as widely as a stranger's text would.
void exercise(const Vocabulary& vocabulary) {
  const std::string texts[] = {
      "The quick brown fox, \u00e9\u0301 \uff21\uff22 \ufb01 \u3042\u304c \u2460 <extra_id_0>x \U0001F917",
      std::string(300, 'a'), std::string("\0\x01\x7f", 3), "\u1100\u1161\u11a8 \u0915\u094d\u0937 \u0e01\u0e33"};
  for (const auto& text : texts) vocabulary.decode(vocabulary.encode(text));
}

// Changed in few or many places anywhere, or cut: most of the file is the normalisation rules, which the library would
// follow out of its memory.
TEST(Vocabulary, DamagedModelsAreErrorsNeverCrashes) {
  const ScratchFolder folder;
  const auto out = folder.path() / "spiece.model";
  train_vocabulary({.text = {folder.write("text.txt", "the cat sat on the mat and the dog sat on the log")},
                    .size = 17,
                    .out = out});
  const std::string whole = read_file(out);
  int num_refused = 0;
  const auto try_bytes = [&](const std::string& bytes) {
    try {
      exercise(Vocabulary::from_bytes(bytes, 10, "damaged.model"));
    } catch (const Error& error) {
      ++num_refused;
      EXPECT_THAT(error.what(), HasSubstr("damaged.model"));
    }
  };
  for (size_t size = 1; size < whole.size(); size += 1 + size / 8) try_bytes(whole.substr(0, size));
  EXPECT_GT(num_refused, 50) << "a file cut anywhere but between fields is damaged";
  NoiseStream noise({.seed = 3});
  num_refused = 0;
  for (int round = 0; round < 150; ++round) {
    std::string bytes = whole;
    const uint64_t num_changes = 1 + noise.below(round % 3 == 0 ? 200 : 3);
    for (uint64_t change = 0; change < num_changes; ++change)
      bytes[noise.below(bytes.size())] = static_cast<char>(noise.next());
    try_bytes(bytes);
  }
  EXPECT_GT(num_refused, 10);
}

}  // namespace
}  // namespace switchyard
