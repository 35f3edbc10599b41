#include "train/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "base/files.h"

namespace {

std::vector<std::string> g_synced;  // names of what fsync() was called for, in order

}  // namespace

// Takes the place of libc's in this program: nothing else shows what reaches the disk before what.
extern "C" int fsync(int descriptor) {
  std::error_code error;
  const auto path = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(descriptor), error);
  g_synced.push_back(path.filename().string());
  return static_cast<int>(::syscall(SYS_fsync, descriptor));
}

namespace switchyard {
namespace {

using testing::AllOf;
using testing::Contains;

class RunFolderTest : public testing::Test {
 protected:
  RunFolderTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "run_folder_test.XXXXXX").string();
    folder = ::mkdtemp(pattern.data());
  }
  ~RunFolderTest() override { std::filesystem::remove_all(folder); }

  static void write_model(const std::filesystem::path& path) { write_file_atomically(path / "config.json", "{}"); }

  std::filesystem::path folder;
};

// After a power cut the checkpoint must not be there without the lines that lead to it.
TEST_F(RunFolderTest, MetricsReachTheDiskBeforeTheirCheckpoint) {
  RunFolder run(folder, {}, false);
  run.start("[train]\n", 0);
  run.log(1, {{"step", 1}});
  g_synced.clear();
  run.save(1, {}, write_model);
  const auto position = [](const char* name) { return std::find(g_synced.begin(), g_synced.end(), name); };
  ASSERT_THAT(g_synced, AllOf(Contains("metrics.jsonl"), Contains("checkpoints")));
  EXPECT_LT(position("metrics.jsonl"), position("checkpoints"));
}

TEST_F(RunFolderTest, IsOneProcessesUntilItEnds) {
  {
    RunFolder run(folder, {}, false);
    EXPECT_THROW(RunFolder(folder, {}, true), Error);
    run.start("[train]\n", 0);
  }
  EXPECT_NO_THROW(RunFolder(folder, {}, true));
  EXPECT_THROW(RunFolder(folder, {}, false), Error);  // it holds a run
}

TEST_F(RunFolderTest, MetricsWithoutACheckpointArePutAside) {
  for (int start = 0; start < 3; ++start) {
    RunFolder run(folder, {}, true);
    run.start("[train]\n", 0);
    run.log(1, {{"step", 1}, {"start", start}});
  }
  EXPECT_EQ(read_file(folder / "metrics.1.jsonl"), "{\"step\":1,\"start\":0}\n");
  EXPECT_EQ(read_file(folder / "metrics.2.jsonl"), "{\"step\":1,\"start\":1}\n");
  EXPECT_EQ(read_file(folder / "metrics.jsonl"), "{\"step\":1,\"start\":2}\n");
}

TEST_F(RunFolderTest, AFolderThatWasNotStartedDoesNotStay) {
  { const RunFolder run(folder / "a", {}, false); }
  EXPECT_FALSE(std::filesystem::exists(folder / "a"));
  { const RunFolder run(folder, {}, false); }
  EXPECT_TRUE(std::filesystem::exists(folder));  // it was there before
}

}  // namespace
}  // namespace switchyard
