#include "text/reader.h"

#include <fcntl.h>
#include <gmock/gmock.h>

#include "text/scratch.h"

namespace switchyard {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Documents = std::vector<std::string>;

Documents read_all(const std::vector<std::filesystem::path>& paths) {
  TextReader reader(paths);
  Documents documents;
  while (auto document = reader.next_document()) documents.push_back(*document);
  return documents;
}

TEST(TextReader, ReadsJsonLinesAndPlainTextInEveryCompression) {
  const ScratchFolder folder;
  const std::string lines =
      "{\"text\": \"one\\ntwo\", \"id\": 3}\n\n{\"id\": \"x\", \"text\": \"caf\\u00e9 \\ud83e\\udd17\"}\n{\"text\": \" "
      " \"}";
  const Documents documents = {"one\ntwo", "caf\u00e9 \U0001F917"};
  EXPECT_EQ(read_all({folder.write("a.jsonl", lines)}), documents);
  EXPECT_EQ(read_all({folder.write("a.jsonl.gz", gzip(lines))}), documents);
  EXPECT_EQ(read_all({folder.write("A.JSONL.ZST", zstd(lines))}), documents);
  const std::string text = "\xef\xbb\xbf\n  \nFirst line\r\nsecond line\r\n\r\n\r\nNext paragraph\n\n";
  const Documents plain = {"First line\nsecond line\n\n\nNext paragraph"};
  for (const auto* name : {"a.txt", "a.pod", "a.unknown", "noextension"})
    EXPECT_EQ(read_all({folder.write(name, text)}), plain);
  EXPECT_EQ(read_all({folder.write("a.txt.gz", gzip(text))}), plain);
  EXPECT_EQ(read_all({folder.write("a.dict.dz", gzip(text))}), plain);
  EXPECT_EQ(read_all({folder.write("a.txt.zst", zstd(text))}), plain);
}

TEST(TextReader, CutsPlainTextAtParagraphsAndKeepsEveryLine) {
  const ScratchFolder folder;
  std::string paragraph;
  for (int line = 0; line < 100; ++line) paragraph += "This is line " + std::to_string(line) + " of the paragraph.\n";
  std::string text;
  for (int count = 0; count < 100; ++count) text += paragraph + "\n";
  const auto documents = read_all({folder.write("long.txt", text)});
  const size_t paragraphs_a_document = TextReader::kDocumentBytes / (paragraph.size() + 1) + 1;
  EXPECT_EQ(documents.size(), (100 + paragraphs_a_document - 1) / paragraphs_a_document);
  std::string joined;
  for (const auto& document : documents) {
    EXPECT_TRUE(document.starts_with("This is line 0 ")) << "a document begins inside a paragraph";
    EXPECT_LT(document.size(), TextReader::kDocumentBytes + 2 * paragraph.size());
    joined += document + "\n\n";
  }
  EXPECT_EQ(joined, text);
}

TEST(TextReader, BoundsTheMemoryOfLongLinesAndParagraphs) {
  const ScratchFolder folder;
  std::string words;  // one line of 5 MB, as text8 is
  while (words.size() < 5'000'000) words += "word" + std::to_string(words.size()) + " ";
  words.pop_back();
  std::string joined;
  for (const auto& document : read_all({folder.write("text8", words)})) {
    EXPECT_LE(document.size(), TextReader::kMaxTextLineBytes + TextReader::kMaxDocumentBytes);
    joined += document;
  }
  EXPECT_EQ(joined, words);
  std::string lines;
  while (lines.size() < 2'000'000) lines += "no blank line here\n";
  for (const auto& document : read_all({folder.write("lines.txt", lines)})) {
    EXPECT_LE(document.size(), TextReader::kMaxDocumentBytes + 100);
  }
  const auto dense = folder.write("dense.txt", "ok\n" + std::string(3'000'000, 'x'));
  EXPECT_THAT(error_of([&] { read_all({dense}); }), AllOf(HasSubstr("dense.txt:2"), HasSubstr("without a space")));
  const auto json =
      folder.write("big.jsonl.zst", zstd("{\"text\": \"" + std::string(TextReader::kMaxJsonLineBytes, 'x') + "\"}"));
  EXPECT_THAT(error_of([&] { read_all({json}); }), AllOf(HasSubstr("big.jsonl.zst:1"), HasSubstr("64 MiB")));
}

TEST(TextReader, ReadsFoldersSortedAndDeep) {
  const ScratchFolder folder;
  folder.write("b/2.txt", "b2");
  folder.write("b/1.jsonl.gz", gzip("{\"text\": \"b1\"}"));
  folder.write("a.md", "a");
  folder.write("c/deep/er.rst.zst", zstd("c"));
  folder.write("b/image.png", "\x89PNG");
  folder.write("b/notes.json", "{}");
  folder.write("b/dataset_info.json", "{\n  \"features\": {\"text\": \"string\"}\n}\n");
  EXPECT_THAT(read_all({folder.path()}), ElementsAre("a", "b1", "b2", "c"));
  EXPECT_THAT(read_all({folder.path() / "c", folder.path() / "a.md"}), ElementsAre("c", "a"));
}

TEST(TextReader, ReadsCorporaUnderTheirOwnNames) {
  const ScratchFolder folder;
  const auto line = [](const std::string& text) {
    return "{\"text\": \"" + text + "\", \"timestamp\": \"2019-04-25T12:57:54Z\", \"url\": \"https://example.org\"}\n";
  };
  folder.write("en/c4-train.00000-of-01024.json.gz", gzip(line("one") + line("two")));
  folder.write("en/c4-train.00001-of-01024.json.zst", zstd(line("three")));
  folder.write("en/c4-validation.json", line("four") + line(std::string(1 << 17, 'x')));
  EXPECT_THAT(read_all({folder.path()}), ElementsAre("one", "two", "three", "four", std::string(1 << 17, 'x')));
  EXPECT_THAT(read_all({folder.path() / "en/c4-train.00000-of-01024.json.gz"}), ElementsAre("one", "two"));
}

TEST(TextReader, LeavesOutNullTextsAndSaysSoOnce) {
  const ScratchFolder folder;
  const auto first = folder.write("a.jsonl", "{\"text\": \"x\"}\n{\"text\": null}\n{\"id\": 3, \"text\": null}\n");
  const auto second = folder.write("b.json", "{\"text\": null}\n{\"text\": \"y\"}\n");
  testing::internal::CaptureStderr();
  EXPECT_THAT(read_all({first, second}), ElementsAre("x", "y"));
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            first.string() + ":2: \"text\" is null; 3 such lines were left out\n");
}

TEST(TextReader, TellsThePlaceOfADocument) {
  const ScratchFolder folder;
  const auto json = folder.write("a.jsonl", "\n{\"text\": \"x\"}\n\n{\"text\": \"y\"}\n");
  const auto text = folder.write("b.txt", "\n\nbegins here\n");
  TextReader reader({json, text});
  for (const std::string& place : {json.string() + ":2", json.string() + ":4", text.string() + ":3"}) {
    ASSERT_TRUE(reader.next_document());
    EXPECT_EQ(reader.place(), place);
  }
  EXPECT_FALSE(reader.next_document());
}

TEST(TextReader, NamesFileLineAndByteOfBadUtf8) {
  const ScratchFolder folder;
  const auto text = folder.write("latin.txt", "fine\ncaf\xe9 au lait\n");
  EXPECT_THAT(error_of([&] { read_all({text}); }),
              AllOf(HasSubstr("latin.txt:2"), HasSubstr("0xe9 at byte 4"), HasSubstr("iconv")));
  const auto json = folder.write("latin.jsonl.gz", gzip("{\"text\": \"ok\"}\n{\"text\": \"\xc3(\"}\n"));
  EXPECT_THAT(error_of([&] { read_all({json}); }), AllOf(HasSubstr("latin.jsonl.gz:2"), HasSubstr("0xc3 at byte 11")));
  std::string line;
  while (line.size() < 2'500'000) line += "abcdefg ";
  const auto late = folder.write("late.txt", line + "\xff");
  EXPECT_THAT(error_of([&] { read_all({late}); }),
              HasSubstr("late.txt:1: not UTF-8: byte 0xff at byte " + std::to_string(line.size() + 1)));
  const auto wide = folder.write("wide.txt", std::string("\xff\xfe"
                                                         "a\0b\0",
                                                         6));
  EXPECT_THAT(error_of([&] { read_all({wide}); }), HasSubstr("UTF-16"));
}

TEST(TextReader, SaysWhatIsWrongWithJson) {
  const ScratchFolder folder;
  const auto message = [&](const std::string& line) {
    const auto path = folder.write("bad.jsonl", "{\"text\": \"good\"}\n" + line + "\n");
    return error_of([&] { read_all({path}); });
  };
  EXPECT_THAT(message("{\"text\": \"cut"), AllOf(HasSubstr("bad.jsonl:2"), HasSubstr("not JSON")));
  EXPECT_THAT(message("{\"body\": \"x\", \"id\": 1}"),
              AllOf(HasSubstr("bad.jsonl:2"), HasSubstr("no field \"text\""), HasSubstr("it has body, id")));
  EXPECT_THAT(message("{\"text\": 7}"), AllOf(HasSubstr("bad.jsonl:2"), HasSubstr("number, expected a string")));
  EXPECT_THAT(message("[1]"), AllOf(HasSubstr("bad.jsonl:2"), HasSubstr("expected a JSON object")));
  EXPECT_THAT(message("{\"text\": \"\\ud800\"}"), HasSubstr("bad.jsonl:2"));
  EXPECT_THAT(message(std::string(100000, '[')), HasSubstr("bad.jsonl:2"));
}

TEST(TextReader, SaysThatThereIsNothingToRead) {
  const ScratchFolder folder;
  EXPECT_THAT(error_of([&] { read_all({folder.path() / "absent.txt"}); }), HasSubstr("absent.txt: no such file"));
  EXPECT_THAT(error_of([&] { read_all({folder.path()}); }), HasSubstr("no text files in this folder"));
  EXPECT_THAT(error_of([&] { read_all({folder.write("empty.txt", "")}); }), HasSubstr("empty.txt: no text in it"));
  EXPECT_THAT(error_of([&] { read_all({folder.write("blank.jsonl", "\n\n{\"text\": \" \"}\n")}); }),
              HasSubstr("blank.jsonl: no text in it"));
  EXPECT_THAT(error_of([&] { read_all({}); }), HasSubstr("no text given"));
  EXPECT_THAT(read_all({folder.path() / "empty.txt", folder.write("full.txt", "x")}), ElementsAre("x"));
}

TEST(TextReader, ReadsStandardInput) {
  const ScratchFolder folder;
  const auto read_from = [&](const std::string& bytes) {
    const auto path = folder.write("stdin", bytes);
    const int saved = ::dup(STDIN_FILENO), file = ::open(path.c_str(), O_RDONLY);
    ::dup2(file, STDIN_FILENO);
    ::close(file);
    const auto documents = read_all({"-"});
    ::dup2(saved, STDIN_FILENO);
    ::close(saved);
    return documents;
  };
  EXPECT_THAT(read_from("plain text\n"), ElementsAre("plain text"));
  EXPECT_THAT(read_from("\n {\"text\": \"from json\"}\n"), ElementsAre("from json"));
  EXPECT_THAT(read_from(gzip("{\"text\": \"zipped\"}\n")), ElementsAre("zipped"));
}

}  // namespace
}  // namespace switchyard
