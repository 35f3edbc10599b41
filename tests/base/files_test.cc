#include "base/files.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "base/error.h"
#include "testing/scratch_folder.h"

namespace switchyard {
namespace {

class Files : public testing::Test {
 protected:
  int64_t entries() const {
    return std::distance(std::filesystem::directory_iterator(folder_.path()), std::filesystem::directory_iterator());
  }
  test::ScratchFolder folder_;
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

TEST_F(Files, WritersOfOneFileDoNotMeet) {
  const auto path = folder_ / "note";
  AtomicFile first(path), second(path);
  second.write("second", 6);
  first.write("the first", 9);
  second.commit();
  EXPECT_EQ(read_file(path), "second");
  first.commit();
  EXPECT_EQ(read_file(path), "the first");
  EXPECT_EQ(entries(), 1);
}

TEST_F(Files, WhatAKilledWriterLeftIsRemovedByTheNext) {
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile file(folder_ / "note");
    file.write("half", 4);
    ::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  ASSERT_EQ(entries(), 1);
  write_file_atomically(folder_ / "another", "whole");
  EXPECT_EQ(entries(), 1);
  EXPECT_EQ(read_file(folder_ / "another"), "whole");
}

TEST_F(Files, TemporariesOfTheLivingAndOfOthersStay) {
  AtomicFile living(folder_ / "living");
  living.write("alive", 5);
  const std::vector<std::string> others = {"note.tmp-1234", ".switchyard-00000000-0123456789abcdef.tmp",
                                           ".switchyard-notes.tmp", ".tmp", "model.safetensors"};
  for (const auto& name : others) std::ofstream(folder_ / name) << "kept";
  write_file_atomically(folder_ / "note", "content");
  for (const auto& name : others) EXPECT_EQ(read_file(folder_ / name), "kept") << name;
  living.commit();
  EXPECT_EQ(read_file(folder_ / "living"), "alive");
}

TEST_F(Files, FullDiskIsAnErrorThatNamesTheFile) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{1 << 16, before.rlim_max};
  auto* const handler = ::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto message = message_of([&] { write_file_atomically(folder_ / "note", std::string(1 << 20, 'x')); });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, handler);
  EXPECT_NE(message.find("note: File too large; nothing was changed"), std::string::npos) << message;
  EXPECT_EQ(entries(), 0);
}

TEST_F(Files, ReadingNamesWhatIsWrong) {
  EXPECT_NE(message_of([&] { read_file(folder_ / "absent"); }).find("absent"), std::string::npos);
  EXPECT_NE(message_of([&] { read_file(folder_.path()); }).find("not a regular file"), std::string::npos);
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
