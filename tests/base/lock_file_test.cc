#include "base/lock_file.h"

#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <optional>

#include "base/error.h"

namespace switchyard {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class Scratch {
 public:
  Scratch() {
    std::string pattern = (std::filesystem::temp_directory_path() / "lock_file_test.XXXXXX").string();
    path = ::mkdtemp(pattern.data());
  }
  ~Scratch() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

std::string refusal(const std::filesystem::path& path) {
  try {
    const LockFile lock(path, "runs/a");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(LockFile, IsHadByOneAtATimeAndLeavesNothing) {
  const Scratch scratch;
  const auto path = scratch.path / "lock";
  {
    const LockFile lock(path, "runs/a");
    EXPECT_THAT(refusal(path), AllOf(HasSubstr("runs/a is in use by process " + std::to_string(::getpid()) + " on ")));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_EQ(refusal(path), "");
  EXPECT_THAT(refusal(scratch.path / "absent" / "lock"), HasSubstr("absent"));
}

TEST(LockFile, EndsWithAKilledHolder) {
  const Scratch scratch;
  const auto path = scratch.path / "lock";
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const LockFile lock(path, "runs/a");
    static_cast<void>(!::write(ready[1], "x", 1));
    ::pause();
  }
  char byte;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_THAT(refusal(path), HasSubstr("process " + std::to_string(child) + " on "));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(std::filesystem::exists(path));
  EXPECT_EQ(refusal(path), "");
  ::close(ready[0]);
  ::close(ready[1]);
}

// Holders take turns; the file that one removes must not be the one that the next two lock.
TEST(LockFile, HoldersTakeTurns) {
  const Scratch scratch;
  const auto path = scratch.path / "lock", inside = scratch.path / "inside";
  std::vector<pid_t> children;
  for (int n = 0; n < 4; ++n) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (int turns = 0; turns < 200;) {
        try {
          const LockFile lock(path, "x");
          if (!std::filesystem::create_directory(inside)) ::_exit(1);
          std::filesystem::remove(inside);
          ++turns;
        } catch (const Error&) {
        }
      }
      ::_exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
}

}  // namespace
}  // namespace switchyard
