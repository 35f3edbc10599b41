#include "base/temporary.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <string_view>

#include "base/error.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

// ".switchyard-" boot "-" random ".tmp", both hexadecimal.
constexpr std::string_view kPrefix = ".switchyard-", kEnd = ".tmp";
constexpr size_t kBootDigits = 8, kRandomDigits = 16;

bool is_hexadecimal(std::string_view text) {
  return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// The start of what Linux calls this boot, shared by all containers on one kernel; "" if it does not tell.
std::string boot_digits() {
  std::string id;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> id;
  id.resize(std::min(id.size(), kBootDigits));
  return id.size() == kBootDigits && is_hexadecimal(id) ? id : "";
}

std::string random_name() {
  std::random_device random;
  const uint64_t number = uint64_t{random()} << 32 | random();
  char digits[kRandomDigits + 1];
  std::snprintf(digits, sizeof(digits), "%016llx", static_cast<unsigned long long>(number));
  const std::string boot = boot_digits();
  return std::string(kPrefix) + (boot.empty() ? std::string(kBootDigits, 'x') : boot) + "-" + digits +
         std::string(kEnd);
}

bool is_of_this_boot(std::string_view name, std::string_view boot) {
  const size_t random_begin = kPrefix.size() + kBootDigits + 1;
  return !boot.empty() && name.size() == random_begin + kRandomDigits + kEnd.size() && name.starts_with(kPrefix) &&
         name.substr(kPrefix.size(), kBootDigits) == boot && name[random_begin - 1] == '-' &&
         is_hexadecimal(name.substr(random_begin, kRandomDigits)) && name.ends_with(kEnd);
}

bool is_same_file(int descriptor, const fs::path& path) {
  struct stat opened {
  }, named{};
  return ::fstat(descriptor, &opened) == 0 && ::lstat(path.c_str(), &named) == 0 && opened.st_dev == named.st_dev &&
         opened.st_ino == named.st_ino;
}

}  // namespace

TemporaryFile make_temporary(const fs::path& folder, const fs::path& target) {
  while (true) {
    TemporaryFile file{folder / random_name()};
    file.descriptor = ::open(file.path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    SY_CHECK(file.descriptor >= 0 || errno == EEXIST, "cannot write ", target.string(), ": ", std::strerror(errno));
    if (file.descriptor < 0) continue;
    // Where the file system knows no locks nobody else gets one either, and nobody removes the file. Between opening
    // and locking somebody may have taken it for abandoned: then it is gone, or about to be.
    const bool taken = ::flock(file.descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (!taken && is_same_file(file.descriptor, file.path)) return file;
    ::close(file.descriptor);
  }
}

void remove_abandoned_temporaries(const fs::path& folder) {
  const std::string boot = boot_digits();
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (!is_of_this_boot(entry->path().filename().string(), boot)) continue;
    const int descriptor = ::open(entry->path().c_str(), O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) continue;
    if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0 && is_same_file(descriptor, entry->path()))
      ::unlink(entry->path().c_str());
    ::close(descriptor);
  }
}

}  // namespace switchyard
