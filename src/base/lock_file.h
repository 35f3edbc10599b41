// One process at a time: a lock that the kernel releases when its holder ends, in whatever way.
#pragma once

#include <filesystem>
#include <string>

namespace switchyard {

class LockFile {
 public:
  // Makes the file, locks it and writes this process's number and host into it. Throws Error naming `what` and the
  // holder if another has the lock. On a file system without locks nothing is locked, and there is no error.
  LockFile(const std::filesystem::path& path, const std::string& what);
  LockFile(const LockFile&) = delete;
  LockFile& operator=(const LockFile&) = delete;
  ~LockFile();  // removes the file

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

// Whether a process of this machine holds the lock, by the kernel's list (/proc/locks): without touching it, so that
// nobody who wants it now is refused.
bool is_locked(const std::filesystem::path& path);

}  // namespace switchyard
