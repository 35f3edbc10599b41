#include "text/compressed_input.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"

namespace switchyard {

enum class Compression { kNone, kGzip, kZstd };

struct CompressedInput::State {
  std::string name;
  int descriptor = -1;
  Compression compression = Compression::kNone;
  std::vector<char> buffer = std::vector<char>(1 << 17);  // compressed bytes
  size_t begin = 0, end = 0;                              // unread part of the buffer
  bool at_end = false;                                    // of the file
  bool inside = false;                                    // a gzip member or zstd frame has begun and not ended
  z_stream gzip{};
  ZSTD_DStream* zstd = nullptr;

  ~State() {
    if (compression == Compression::kGzip) inflateEnd(&gzip);
    ZSTD_freeDStream(zstd);
    if (descriptor > STDIN_FILENO) ::close(descriptor);
  }

  // Appends what the next read gives to the buffer; false at the end of the file.
  bool fill() {
    if (at_end) return false;
    if (begin == end) begin = end = 0;
    if (end == buffer.size()) {
      std::memmove(buffer.data(), buffer.data() + begin, end - begin);
      end -= begin;
      begin = 0;
    }
    while (true) {
      const ssize_t count = ::read(descriptor, buffer.data() + end, buffer.size() - end);
      if (count < 0 && errno == EINTR) continue;
      SY_CHECK(count >= 0, "cannot read ", name, ": ", std::strerror(errno));
      at_end = count == 0;
      end += static_cast<size_t>(count);
      return count > 0;
    }
  }
  bool available() { return begin < end || fill(); }
  bool starts_with(std::string_view magic) const {
    return end - begin >= magic.size() && std::memcmp(buffer.data() + begin, magic.data(), magic.size()) == 0;
  }
  bool starts_with_zstd() const {
    // A frame, or one of the sixteen skippable frames.
    return starts_with("\x28\xb5\x2f\xfd") || (end - begin >= 4 && (buffer[begin] & 0xF0) == 0x50 &&
                                               std::memcmp(buffer.data() + begin + 1, "\x2a\x4d\x18", 3) == 0);
  }
  [[noreturn]] void cut_short() const {
    throw Error(join(name, ": the compressed file ends too early; copy or download it again"));
  }
  [[noreturn]] void damaged(const std::string& cause) const {
    throw Error(join(name, ": damaged compressed data (", cause, "); copy or download it again"));
  }

  // Between members: zero bytes are padding (tar, dd), anything else must be another member.
  bool next_gzip_member() {
    while (available() && buffer[begin] == '\0') ++begin;
    while (end - begin < 2 && fill()) {
    }
    if (begin == end) return false;
    if (!starts_with("\x1f\x8b")) damaged("bytes after the end that are not gzip");
    if (inflateReset(&gzip) != Z_OK) damaged("zlib cannot start");
    return inside = true;
  }

  size_t read_gzip(char* out, size_t size) {
    while (true) {
      if (!inside && !next_gzip_member()) return 0;
      if (!available()) cut_short();
      gzip.next_in = reinterpret_cast<Bytef*>(buffer.data() + begin);
      gzip.avail_in = static_cast<uInt>(end - begin);
      gzip.next_out = reinterpret_cast<Bytef*>(out);
      gzip.avail_out = static_cast<uInt>(size);
      const int result = inflate(&gzip, Z_NO_FLUSH);
      begin = end - gzip.avail_in;
      if (result == Z_STREAM_END) inside = false;
      if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
        damaged(gzip.msg != nullptr ? gzip.msg : "zlib");
      const size_t produced = size - gzip.avail_out;
      if (produced > 0) return produced;
    }
  }

  size_t read_zstd(char* out, size_t size) {
    while (true) {
      // After a frame's end more input is needed for the next; inside one, the decoder may still hold output.
      if (!available() && !inside) return 0;
      ZSTD_inBuffer input{buffer.data(), end, begin};
      ZSTD_outBuffer output{out, size, 0};
      const bool exhausted = begin == end;
      const size_t result = ZSTD_decompressStream(zstd, &output, &input);
      if (ZSTD_isError(result)) damaged(ZSTD_getErrorName(result));
      begin = input.pos;
      inside = result != 0;
      if (output.pos > 0) return output.pos;
      if (exhausted && inside) cut_short();
    }
  }

  size_t read_plain(char* out, size_t size) {
    if (!available()) return 0;
    const size_t count = std::min(size, end - begin);
    std::memcpy(out, buffer.data() + begin, count);
    begin += count;
    return count;
  }
};

CompressedInput::CompressedInput(const std::filesystem::path& path) : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.name = path == "-" ? "standard input" : path.string();
  if (path == "-") {
    state.descriptor = STDIN_FILENO;
  } else {
    state.descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    SY_CHECK(state.descriptor >= 0, "cannot read ", state.name, ": ", std::strerror(errno));
    struct stat status {};
    const bool is_folder = ::fstat(state.descriptor, &status) == 0 && S_ISDIR(status.st_mode);
    SY_CHECK(!is_folder, "cannot read ", state.name, ": it is a folder");
  }
  while (state.end < 4 && state.fill()) {
  }
  const std::string extension = path.extension().string();
  if (state.starts_with("\x1f\x8b")) {
    SY_CHECK(inflateInit2(&state.gzip, 15 + 16) == Z_OK, "zlib cannot start");
    state.compression = Compression::kGzip;
    state.inside = true;
  } else if (state.starts_with_zstd()) {
    state.compression = Compression::kZstd;
    state.zstd = ZSTD_createDStream();
    // A frame may ask for a window of gigabytes; 128 MiB is what `zstd --long` writes and `zstd -d` accepts.
    ZSTD_DCtx_setParameter(state.zstd, ZSTD_d_windowLogMax, 27);
  } else if (state.end > 0) {
    SY_CHECK(extension != ".gz" && extension != ".dz", state.name, ": named ", extension,
             " but not gzip data; rename or make it again");
    SY_CHECK(extension != ".zst", state.name, ": named .zst but not zstd data; rename or make it again");
  }
}

CompressedInput::~CompressedInput() = default;

size_t CompressedInput::read(char* out, size_t size) {
  size = std::min<size_t>(size, 1 << 30);  // zlib counts in 32 bits
  switch (state_->compression) {
    case Compression::kGzip:
      return state_->read_gzip(out, size);
    case Compression::kZstd:
      return state_->read_zstd(out, size);
    case Compression::kNone:
      break;
  }
  return state_->read_plain(out, size);
}

}  // namespace switchyard
