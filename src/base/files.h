// Files that are whole or absent: writes go to a temporary name, are synced, then renamed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace switchyard {

// The file's bytes. Throws Error naming the path if it is missing, a folder, unreadable, or longer than `limit` bytes.
std::string read_file(const std::filesystem::path& path, uint64_t limit = uint64_t{1} << 31);

// Replaces `path` by `bytes` in one step: temporary file beside it, fsync, rename, fsync of the folder. Throws Error
// (no space, no permission) and removes the temporary; the old content then still stands.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

// A new file written piece by piece, for content too large to hold. Nothing appears under `path` until commit(). Any
// number of writers may have one `path`: the last to commit wins. Temporary files of killed writers are removed.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();                               // removes the temporary if commit() was not reached
  void write(const void* bytes, size_t size);  // throws Error, naming path and cause
  void commit();                               // fsync, rename, fsync of the folder

 private:
  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
};

// Removes files where it can: the clean-up of a caller that reports another error.
void remove_files(std::span<const std::filesystem::path> paths) noexcept;

// fsync of a folder, so that renames in it survive a power cut.
void sync_folder(const std::filesystem::path& folder);

// A file read at any place, from any thread. Throws Error, never a signal, when the file is cut short or rewritten
// meanwhile.
class InputFile {
 public:
  explicit InputFile(const std::filesystem::path& path);  // throws Error
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile();
  uint64_t size() const { return size_; }  // when it was opened
  void read(uint64_t offset, void* bytes, size_t size) const;

 private:
  void check_unchanged() const;

  std::filesystem::path path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
  int64_t modified_[2] = {0, 0};  // seconds and nanoseconds
};

// A read-only mapping of a whole file. If the file is cut short meanwhile, the process ends: map only files that this
// program wrote, and only for a short time. bytes() stays valid as long as the object; an empty file gives an empty
// span.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);  // throws Error
  MappedFile(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace switchyard
