#include "base/lock_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#include "base/error.h"

namespace switchyard {
namespace {

std::string host_name() {
  char name[256] = "";
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "an unnamed host";
}

std::string content_of(int descriptor) {
  char text[512];
  const ssize_t size = ::pread(descriptor, text, sizeof text, 0);
  std::string content(text, size > 0 ? static_cast<size_t>(size) : 0);
  while (content.ends_with('\n')) content.pop_back();
  return content.empty() ? "another process" : content;
}

// Whether the path still leads to this file: its last holder removes it, perhaps between our open and our lock.
bool is_current(int descriptor, const std::filesystem::path& path) {
  struct stat ours {
  }, named{};
  return ::fstat(descriptor, &ours) == 0 && ::stat(path.c_str(), &named) == 0 && ours.st_ino == named.st_ino &&
         ours.st_dev == named.st_dev;
}

}  // namespace

LockFile::LockFile(const std::filesystem::path& path, const std::string& what) : path_(path) {
  while (true) {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    SY_CHECK(descriptor_ >= 0, path_.string(), ": cannot be made: ", std::strerror(errno));
    int result;
    do result = ::flock(descriptor_, LOCK_EX | LOCK_NB);
    while (result != 0 && errno == EINTR);
    if (result != 0 && errno == EWOULDBLOCK) {
      const std::string holder = content_of(descriptor_);
      ::close(descriptor_);
      throw Error(join(what, " is in use by ", holder, "; wait until it ends, or stop it"));
    }
    if (is_current(descriptor_, path_)) break;
    ::close(descriptor_);
  }
  const std::string holder = join("process ", ::getpid(), " on ", host_name(), "\n");
  // Without this text, on a full disk, the lock holds all the same.
  static_cast<void>(!::ftruncate(descriptor_, 0));
  static_cast<void>(!::pwrite(descriptor_, holder.data(), holder.size(), 0));
}

LockFile::~LockFile() {
  ::unlink(path_.c_str());
  ::close(descriptor_);
}

bool is_locked(const std::filesystem::path& path) {
  struct stat file {};
  if (::stat(path.c_str(), &file) != 0) return false;
  const auto inode = ":" + std::to_string(file.st_ino) + " ";
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);)
    if (line.find(" FLOCK ") != std::string::npos && line.find(inode) != std::string::npos &&
        line.find("->") == std::string::npos)
      return true;
  return false;
}

}  // namespace switchyard
