#include "base/files.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"

namespace switchyard {
namespace {

class Files : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / join("switchyard-files-", ::getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  int64_t entries() const {
    return std::distance(std::filesystem::directory_iterator(folder_), std::filesystem::directory_iterator());
  }
  std::filesystem::path folder_;
};

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST_F(Files, WriteReplacesWholeAndLeavesNoTemporary) {
  const auto path = folder_ / "note";
  write_file_atomically(path, "first");
  write_file_atomically(path, std::string("sec\0nd", 6));
  EXPECT_EQ(read_file(path), std::string("sec\0nd", 6));
  EXPECT_EQ(entries(), 1);
}

TEST_F(Files, WithoutCommitTheOldContentStands) {
  const auto path = folder_ / "note";
  write_file_atomically(path, "old");
  {
    AtomicFile file(path);
    file.write("new", 3);
  }
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(entries(), 1);
}

TEST_F(Files, FullDeviceIsAnErrorThatNamesTheFile) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  std::filesystem::create_symlink("/dev/full", folder_ / join("note.tmp-", ::getpid()));
  const auto message = message_of([&] { write_file_atomically(folder_ / "note", "content"); });
  EXPECT_NE(message.find("note"), std::string::npos) << message;
  EXPECT_NE(message.find("No space left"), std::string::npos) << message;
  EXPECT_FALSE(std::filesystem::exists(folder_ / "note"));
}

TEST_F(Files, ReadingNamesWhatIsWrong) {
  EXPECT_NE(message_of([&] { read_file(folder_ / "absent"); }).find("absent"), std::string::npos);
  EXPECT_NE(message_of([&] { read_file(folder_); }).find("not a regular file"), std::string::npos);
  write_file_atomically(folder_ / "long", "0123456789");
  EXPECT_NE(message_of([&] { read_file(folder_ / "long", 9); }).find("at most 9"), std::string::npos);
}

TEST_F(Files, InputIsReadAnywhereAsLongAsItStays) {
  write_file_atomically(folder_ / "data", "0123456789");
  const InputFile file(folder_ / "data");
  EXPECT_EQ(file.size(), 10u);
  std::string bytes(3, ' ');
  file.read(7, bytes.data(), 3);
  EXPECT_EQ(bytes, "789");
  EXPECT_NE(message_of([&] { file.read(8, bytes.data(), 3); }).find("ends at byte 10"), std::string::npos);
  write_file_atomically(folder_ / "data", "another file of that name");
  file.read(0, bytes.data(), 3);
  EXPECT_EQ(bytes, "012");

  const InputFile rewritten(folder_ / "data");
  std::filesystem::resize_file(folder_ / "data", 4);
  const auto message = message_of([&] { rewritten.read(0, bytes.data(), 3); });
  EXPECT_NE(message.find("data was changed while it was in use (25 bytes"), std::string::npos) << message;
  EXPECT_NE(message_of([&] { InputFile absent(folder_ / "absent"); }).find("absent"), std::string::npos);
}

TEST_F(Files, MappingShowsTheBytes) {
  write_file_atomically(folder_ / "data", "mapped");
  const MappedFile file(folder_ / "data");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()), "mapped");
  write_file_atomically(folder_ / "empty", "");
  EXPECT_EQ(MappedFile(folder_ / "empty").bytes().size(), 0u);
}

}  // namespace
}  // namespace switchyard
