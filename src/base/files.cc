#include "base/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/temporary.h"

namespace switchyard {
namespace {

std::string reason() { return std::strerror(errno); }

int open_for_reading(const std::filesystem::path& path, struct stat& status) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  SY_CHECK(descriptor >= 0, "cannot read ", path.string(), ": ", reason());
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor);
    throw Error(join("cannot read ", path.string(), ": it is not a regular file"));
  }
  return descriptor;
}

}  // namespace

std::string read_file(const std::filesystem::path& path, uint64_t limit) {
  struct stat status {};
  const int descriptor = open_for_reading(path, status);
  std::string bytes;
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size <= limit) bytes.resize(size);
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = ::read(descriptor, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    done += static_cast<size_t>(count);
  }
  ::close(descriptor);
  SY_CHECK(size <= limit, "cannot read ", path.string(), ": ", size, " bytes, expected at most ", limit);
  SY_CHECK(done == size, "cannot read ", path.string(), ": got ", done, " of ", size, " bytes");
  return bytes;
}

AtomicFile::AtomicFile(const std::filesystem::path& path) : path_(path) {
  const auto folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  remove_abandoned_temporaries(folder);
  auto [temporary, descriptor] = make_temporary(folder, path);
  temporary_ = std::move(temporary);
  descriptor_ = descriptor;
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::unlink(temporary_.c_str());
  ::close(descriptor_);
}

void AtomicFile::write(const void* bytes, size_t size) {
  const char* at = static_cast<const char*>(bytes);
  while (size > 0) {
    const ssize_t count = ::write(descriptor_, at, size);
    if (count < 0 && errno == EINTR) continue;
    SY_CHECK(count > 0, "cannot write ", path_.string(), ": ", reason(), "; nothing was changed");
    at += count;
    size -= static_cast<size_t>(count);
  }
}

void AtomicFile::commit() {
  SY_CHECK(::fsync(descriptor_) == 0, "cannot write ", path_.string(), ": ", reason(), "; nothing was changed");
  // Renamed before it is closed, and with it unlocked: until then it must not seem abandoned.
  SY_CHECK(::rename(temporary_.c_str(), path_.c_str()) == 0, "cannot write ", path_.string(), ": ", reason());
  ::close(std::exchange(descriptor_, -1));
  sync_folder(path_.parent_path());
}

void write_file_atomically(const std::filesystem::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes.data(), bytes.size());
  file.commit();
}

void remove_files(std::span<const std::filesystem::path> paths) noexcept {
  for (const auto& path : paths) ::unlink(path.c_str());
}

void sync_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);  // some file systems refuse it on folders; the rename has happened all the same
  ::close(descriptor);
}

InputFile::InputFile(const std::filesystem::path& path) : path_(path) {
  struct stat status {};
  descriptor_ = open_for_reading(path, status);
  size_ = static_cast<uint64_t>(status.st_size);
  modified_[0] = status.st_mtim.tv_sec;
  modified_[1] = status.st_mtim.tv_nsec;
}

InputFile::~InputFile() { ::close(descriptor_); }

void InputFile::read(uint64_t offset, void* bytes, size_t size) const {
  char* to = static_cast<char*>(bytes);
  while (size > 0) {
    const ssize_t count = ::pread(descriptor_, to, size, static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    SY_CHECK(count >= 0, "cannot read ", path_.string(), ": ", reason());
    if (count == 0) break;
    to += count;
    offset += static_cast<uint64_t>(count);
    size -= static_cast<size_t>(count);
  }
  check_unchanged();
  SY_CHECK(size == 0, "cannot read ", path_.string(), ": it ends at byte ", offset, ", ", size, " more were expected");
}

void InputFile::check_unchanged() const {
  struct stat status {};
  SY_CHECK(::fstat(descriptor_, &status) == 0, "cannot read ", path_.string(), ": ", reason());
  SY_CHECK(static_cast<uint64_t>(status.st_size) == size_ && status.st_mtim.tv_sec == modified_[0] &&
               status.st_mtim.tv_nsec == modified_[1],
           path_.string(), " was changed while it was in use (", size_, " bytes when it was opened, ", status.st_size,
           " now); start again once it is complete");
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  struct stat status {};
  const int descriptor = open_for_reading(path, status);
  size_ = static_cast<size_t>(status.st_size);
  if (size_ > 0) data_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
  const std::string cause = reason();
  ::close(descriptor);
  if (data_ == MAP_FAILED) {
    data_ = nullptr;
    throw Error(join("cannot map ", path.string(), ": ", cause));
  }
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace switchyard
