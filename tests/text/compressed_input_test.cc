#include "text/compressed_input.h"

#include <gmock/gmock.h>

#include "base/random.h"
#include "text/scratch.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;

std::string read_all(const std::filesystem::path& path, size_t chunk = 4096) {
  CompressedInput input(path);
  std::string text, buffer(chunk, '\0');
  while (const size_t count = input.read(buffer.data(), chunk)) text.append(buffer, 0, count);
  return text;
}

// Text that compresses moderately, longer than all buffers.
std::string sample(size_t size) {
  NoiseStream noise({.seed = 5});
  std::string text;
  while (text.size() < size) text += "word" + std::to_string(noise.below(5000)) + (noise.below(12) == 0 ? "\n" : " ");
  return text;
}

TEST(CompressedInput, ReadsEveryFormatInEveryChunkSize) {
  const ScratchFolder folder;
  const std::string text = sample(700'000);
  const auto half = text.size() / 2;
  const std::string skippable("\x50\x2a\x4d\x18\x03\0\0\0abc", 11);
  const auto files = {
      folder.write("plain.txt", text),
      folder.write("one.txt.gz", gzip(text)),
      folder.write("members.txt.gz", gzip(text.substr(0, half)) + gzip("") + gzip(text.substr(half))),
      folder.write("padded.txt.dz", gzip(text) + std::string(1000, '\0')),
      folder.write("unnamed", gzip(text)),
      folder.write("one.txt.zst", zstd(text)),
      folder.write("frames.zst",
                   skippable + zstd(text.substr(0, half)) + zstd("") + zstd(text.substr(half)) + skippable),
  };
  for (const auto& file : files) {
    for (const size_t chunk : {size_t{977}, size_t{65536}, size_t{4} << 20}) {
      EXPECT_TRUE(read_all(file, chunk) == text) << file << " in chunks of " << chunk;
    }
  }
  EXPECT_EQ(read_all(folder.write("empty.txt", "")), "");
  EXPECT_EQ(read_all(folder.write("empty.gz", gzip(""))), "");
  EXPECT_EQ(read_all(folder.write("empty.zst", zstd(""))), "");
}

TEST(CompressedInput, EveryTruncationIsAnErrorThatNamesTheFile) {
  const ScratchFolder folder;
  const std::string text = sample(20'000);
  for (const bool is_gzip : {true, false}) {
    const std::string whole = is_gzip ? gzip(text) : zstd(text);
    const std::string name = is_gzip ? "cut.gz" : "cut.zst";
    for (size_t size = 4; size < whole.size(); size += 1 + size / 16) {
      const auto path = folder.write(name, whole.substr(0, size));
      EXPECT_THAT(error_of([&] { read_all(path); }), HasSubstr(name + ": the compressed file ends too early")) << size;
    }
    const auto path = folder.write(name, whole.substr(0, whole.size() - 1));
    EXPECT_THAT(error_of([&] { read_all(path); }), HasSubstr("ends too early"));
  }
}

TEST(CompressedInput, DamageIsFoundByTheChecksum) {
  const ScratchFolder folder;
  const std::string whole = gzip(sample(20'000));
  for (size_t at = 20; at < whole.size(); at += 97) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    const auto path = folder.write("bad.gz", damaged);
    const std::string message = error_of([&] { read_all(path); });
    EXPECT_THAT(message, HasSubstr("bad.gz: ")) << at;
  }
  const auto bad_zstd = folder.write("bad.zst", std::string("\x28\xb5\x2f\xfd", 4) + std::string(200, '\xff'));
  EXPECT_THAT(error_of([&] { read_all(bad_zstd); }), HasSubstr("damaged compressed data"));
  const auto tail = folder.write("tail.gz", whole + "tail");
  EXPECT_THAT(error_of([&] { read_all(tail); }), HasSubstr("damaged compressed data"));
}

TEST(CompressedInput, SaysWhatIsWrongWithAPath) {
  const ScratchFolder folder;
  EXPECT_THAT(error_of([&] { read_all(folder.path() / "absent.txt"); }), HasSubstr("absent.txt: No such file"));
  EXPECT_THAT(error_of([&] { read_all(folder.path()); }), HasSubstr("it is a folder"));
  EXPECT_THAT(error_of([&] { read_all(folder.write("plain.gz", "plain")); }), HasSubstr("not gzip data"));
  EXPECT_THAT(error_of([&] { read_all(folder.write("plain.zst", "plain")); }), HasSubstr("not zstd data"));
}

TEST(CompressedInput, RefusesAWindowBeyondMemory) {
  const ScratchFolder folder;
  // Frame header: window descriptor 0xFF asks for about 3.75 TiB.
  const auto path = folder.write("window.zst", std::string("\x28\xb5\x2f\xfd\x00\xff\x01\x00\x00", 9));
  EXPECT_THAT(error_of([&] { read_all(path); }), HasSubstr("window.zst: damaged"));
}

}  // namespace
}  // namespace switchyard
