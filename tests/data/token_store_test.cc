#include "data/token_store.h"

#include <gmock/gmock.h>
#include <sys/wait.h>

#include <fstream>
#include <thread>

#include "base/files.h"
#include "base/random.h"
#include "text/scratch.h"
#include "text/vocabulary.h"
#include "text/vocabulary_training.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<int32_t>;

std::string sample_text(size_t size, uint64_t seed) {
  static constexpr const char* kParts[] = {"train", "switch", "yard", "expert", "router", "token",
                                           "the",   "a",      "of",   "model",  "ing",    "ness"};
  NoiseStream noise({.seed = seed});
  std::string text;
  while (text.size() < size) {
    text += std::string(kParts[noise.below(12)]) + kParts[noise.below(12)] + (noise.below(10) == 0 ? "\n" : " ");
    if (noise.below(150) == 0) text += "\n\n";
  }
  return text;
}

const Vocabulary& vocabulary() {
  static const Vocabulary made = [] {
    const ScratchFolder folder;
    const auto out = folder.path() / "spiece.model";
    train_vocabulary({.text = {folder.write("text.txt", sample_text(50'000, 1))}, .size = 60, .out = out});
    return Vocabulary::load(out);
  }();
  return made;
}

Ids all_tokens(const TokenStore& store) {
  Ids tokens(static_cast<size_t>(store.size()));
  store.read(0, tokens);
  return tokens;
}

std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

TEST(TokenStore, HoldsTheDocumentsInOrderWithNothingBetween) {
  const ScratchFolder folder;
  const std::string documents[] = {"the expert router", "a model of training", "switchyard"};
  const auto json =
      folder.write("a.jsonl.gz", gzip("{\"text\": \"" + documents[0] + "\"}\n{\"text\": \"" + documents[1] + "\"}\n"));
  const auto text = folder.write("b.txt", documents[2]);
  Ids expected;
  int64_t num_bytes = 0;
  for (const auto& document : documents) {
    const auto ids = vocabulary().encode(document);
    expected.insert(expected.end(), ids.begin(), ids.end());
    num_bytes += static_cast<int64_t>(document.size());
  }
  for (const std::filesystem::path& cache : {folder.path() / "cache", std::filesystem::path()}) {
    const auto store = TokenStore::open({json, text}, vocabulary(), {.cache_folder = cache});
    EXPECT_EQ(all_tokens(store), expected);
    EXPECT_EQ(store.num_documents(), 3);
    EXPECT_EQ(store.text_bytes(), num_bytes);
    for (int64_t begin = 0; begin <= store.size(); ++begin) {  // across the border of the two files too
      for (int64_t end = begin; end <= store.size(); ++end) {
        Ids part(static_cast<size_t>(end - begin));
        store.read(begin, part);
        ASSERT_EQ(part, Ids(expected.begin() + begin, expected.begin() + end));
      }
    }
    Ids beyond(2);
    EXPECT_THROW(store.read(store.size() - 1, beyond), Error);
    EXPECT_THROW(store.read(-1, beyond), Error);
  }
}

TEST(TokenStore, DoesNotDependOnTheNumberOfThreads) {
  const ScratchFolder folder;
  std::string lines;  // several blocks of text
  for (uint64_t document = 0; document < 100; ++document) {
    std::string text = sample_text(45'000, document);
    std::replace(text.begin(), text.end(), '\n', ' ');
    lines += "{\"text\": \"" + text + "\"}\n";
  }
  const auto path = folder.write("big.jsonl.zst", zstd(lines));
  const auto one = TokenStore::open({path}, vocabulary(), {.num_threads = 1});
  const auto four = TokenStore::open({path}, vocabulary(), {.num_threads = 4});
  EXPECT_TRUE(all_tokens(one) == all_tokens(four));
  EXPECT_EQ(one.num_documents(), 100);
}

TEST(TokenStore, LongDocumentsEncodeAsAWhole) {
  const ScratchFolder folder;
  std::string text = sample_text(1'000'000, 8) + "  two  spaces <extra_id_3> " + std::string(200'000, 'x') + " end";
  std::string json = "{\"text\": \"";
  for (const char c : text) json += c == '\n' ? "\\n" : std::string(1, c);
  const auto path = folder.write("long.jsonl", json + "\"}\n");
  const auto store = TokenStore::open({path}, vocabulary(), {});
  EXPECT_TRUE(all_tokens(store) == vocabulary().encode(text));
  EXPECT_EQ(store.num_documents(), 1);
}

TEST(TokenStore, UsesTheCacheAgainUntilTextOrVocabularyChange) {
  const ScratchFolder folder;
  const auto cache = folder.path() / "cache";
  const auto a = folder.write("a.txt", sample_text(20'000, 3)), b = folder.write("b.txt", sample_text(20'000, 4));
  const auto first = all_tokens(TokenStore::open({a}, vocabulary(), {.cache_folder = cache}));
  ASSERT_EQ(files_in(cache).size(), 1u);
  const auto made = std::filesystem::last_write_time(files_in(cache)[0]);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // so that a file made again would show a later time
  const auto both = all_tokens(TokenStore::open({a, b}, vocabulary(), {.cache_folder = cache}));
  ASSERT_EQ(files_in(cache).size(), 2u) << "only the added file is tokenised";
  EXPECT_EQ(std::filesystem::last_write_time(files_in(cache)[0]), made);
  EXPECT_TRUE(std::equal(first.begin(), first.end(), both.begin()));

  std::ofstream(a, std::ios::app) << "\nmore of the model";
  const auto changed = all_tokens(TokenStore::open({a}, vocabulary(), {.cache_folder = cache}));
  EXPECT_GT(changed.size(), first.size());
  EXPECT_EQ(files_in(cache).size(), 2u) << "the stale file is replaced";
  const auto other = Vocabulary::from_bytes(vocabulary().model_bytes(), 50);
  TokenStore::open({a}, other, {.cache_folder = cache});
  EXPECT_EQ(files_in(cache).size(), 3u);
}

TEST(TokenStore, MakesADamagedCacheAnew) {
  const ScratchFolder folder;
  const auto cache = folder.path() / "cache";
  const auto text = folder.write("a.txt", sample_text(3'000, 5));
  const auto expected = all_tokens(TokenStore::open({text}, vocabulary(), {.cache_folder = cache}));
  const auto file = files_in(cache).at(0);
  const std::string whole = read_file(file);
  const auto check = [&](const std::string& bytes, const std::string& what) {
    std::ofstream(file, std::ios::binary) << bytes;
    EXPECT_EQ(all_tokens(TokenStore::open({text}, vocabulary(), {.cache_folder = cache})), expected) << what;
    EXPECT_EQ(read_file(file), whole) << what;
  };
  testing::internal::CaptureStderr();
  for (size_t at = 0; at < whole.size(); at += 1 + whole.size() / 61) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    check(bytes, join("bit flipped in byte ", at));
  }
  for (size_t from_end = 1; from_end <= 64; ++from_end) {
    std::string bytes = whole;
    bytes[bytes.size() - from_end] = static_cast<char>(bytes[bytes.size() - from_end] ^ 0x40);
    check(bytes, join("bit flipped ", from_end, " bytes from the end"));
  }
  check("", "empty");
  check(whole.substr(0, whole.size() / 2), "cut");
  check(whole + "x", "longer");
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr(file.string() + ": damaged; making it again"));
}

TEST(TokenStore, ManyProcessesAndThreadsMakeItOnce) {
  const ScratchFolder folder;
  const auto cache = folder.path() / "cache";
  const auto text = folder.write("a.txt", sample_text(400'000, 6));
  const auto expected = all_tokens(TokenStore::open({text}, vocabulary(), {}));
  std::vector<pid_t> children;
  for (int child = 0; child < 3; ++child) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      bool good = false;
      try {
        good =
            all_tokens(TokenStore::open({text}, vocabulary(), {.cache_folder = cache, .num_threads = 1})) == expected;
      } catch (...) {
      }
      ::_exit(good ? 0 : 1);
    }
    children.push_back(pid);
  }
  std::vector<std::thread> threads;
  std::vector<Ids> results(3);
  for (auto& result : results) {
    threads.emplace_back([&] {
      try {
        result = all_tokens(TokenStore::open({text}, vocabulary(), {.cache_folder = cache}));
      } catch (const std::exception& error) {
        ADD_FAILURE() << error.what();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_TRUE(result == expected);
  for (const pid_t pid : children) {
    int status = -1;
    ::waitpid(pid, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(files_in(cache).size(), 1u) << "no temporary files stay behind";
}

TEST(TokenStore, WideVocabulariesTakeFourBytes) {
  const ScratchFolder folder;
  const auto wide = Vocabulary::from_bytes(vocabulary().model_bytes(), 70'000);
  const auto text = folder.write("a.txt", "the <extra_id_0> model <extra_id_69999> of");
  for (int round = 0; round < 2; ++round) {
    const auto store = TokenStore::open({text}, wide, {.cache_folder = folder.path() / "cache"});
    EXPECT_EQ(all_tokens(store), wide.encode("the <extra_id_0> model <extra_id_69999> of"));
    EXPECT_GT(wide.size(), 65536);
  }
}

TEST(TokenStore, DocumentsWithoutTokensLeaveTheCacheWhole) {
  const ScratchFolder folder;
  // A zero-width space is text to the reader and nothing to SentencePiece.
  const auto text = folder.write("a.jsonl", R"({"text": "the model"}
{"text": "\u200b"}
{"text": "of a"}
)");
  for (const int32_t num_sentinels : {100, 70'000}) {
    const auto some = Vocabulary::from_bytes(vocabulary().model_bytes(), num_sentinels);
    ASSERT_TRUE(some.encode("\u200b").empty());
    auto expected = some.encode("the model");
    for (const int32_t id : some.encode("of a")) expected.push_back(id);
    EXPECT_EQ(all_tokens(TokenStore::open({text}, some, {.cache_folder = folder.path() / "cache"})), expected);
  }
}

TEST(TokenStore, SkipsBlankFilesAndSaysIfAllAreBlank) {
  const ScratchFolder folder;
  const auto blank = folder.write("blank.txt", "\n\n"), text = folder.write("text.txt", "the model");
  const TokenStoreOptions options{.cache_folder = folder.path() / "cache"};
  EXPECT_EQ(all_tokens(TokenStore::open({blank, text, blank}, vocabulary(), options)),
            vocabulary().encode("the model"));
  EXPECT_THAT(error_of([&] { TokenStore::open({blank}, vocabulary(), options); }),
              HasSubstr("blank.txt: no text in it"));
  EXPECT_THAT(error_of([&] { TokenStore::open({folder.path() / "absent"}, vocabulary(), options); }),
              HasSubstr("no such file"));
  const auto bad = folder.write("bad.txt", "caf\xe9");
  EXPECT_THAT(error_of([&] { TokenStore::open({bad}, vocabulary(), options); }), HasSubstr("bad.txt:1: not UTF-8"));
  for (const auto& file : files_in(options.cache_folder))
    EXPECT_THAT(file.string(), testing::Not(HasSubstr("bad"))) << "nothing half-made";
  EXPECT_THAT(error_of([&] { TokenStore::open({text}, vocabulary(), {.cache_folder = text / "cache"}); }),
              HasSubstr("cannot make the cache folder"));
}

}  // namespace
}  // namespace switchyard
