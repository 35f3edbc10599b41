#include "train/metrics.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

namespace switchyard {
namespace {

// Bytes of the leading lines whose step is at most `last_step`.
int64_t kept_bytes(const std::filesystem::path& path, int64_t last_step) {
  std::ifstream file(path, std::ios::binary);
  std::string text;
  int64_t kept = 0;
  for (int64_t number = 1; std::getline(file, text) && !file.eof(); ++number) {  // eof: no '\n' ends this line
    const std::string place = join(path.string(), ":", number);
    const Json line = parse_json(text, place);
    SY_CHECK(line.is_object() && line.contains("step") && line.at("step").is_number_integer(), place,
             ": expected an object with a whole-numbered \"step\"; remove this line to resume");
    if (line.at("step").get<int64_t>() > last_step) break;
    kept += static_cast<int64_t>(text.size()) + 1;
  }
  return kept;
}

}  // namespace

MetricsWriter::MetricsWriter(const std::filesystem::path& path, int64_t step) : path_(path) {
  const int64_t kept = kept_bytes(path, step);
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  SY_CHECK(descriptor_ >= 0, path.string(), ": cannot be opened for writing: ", std::strerror(errno));
  if (::ftruncate(descriptor_, kept) != 0) {
    const int cause = errno;
    ::close(descriptor_);
    throw Error(join(path.string(), ": cannot be cut to its first ", kept, " bytes: ", std::strerror(cause)));
  }
}

MetricsWriter::~MetricsWriter() { ::close(descriptor_); }

void MetricsWriter::sync() {
  SY_CHECK(::fsync(descriptor_) == 0, path_.string(), ": cannot be written: ", std::strerror(errno));
}

void MetricsWriter::write(const Json& line) {
  const std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  struct stat before {};
  const bool has_size = ::fstat(descriptor_, &before) == 0;
  ssize_t written;
  do written = ::write(descriptor_, text.data(), text.size());
  while (written < 0 && errno == EINTR);
  if (written == static_cast<ssize_t>(text.size())) return;
  const int cause = written < 0 ? errno : ENOSPC;
  if (has_size && written > 0) static_cast<void>(!::ftruncate(descriptor_, before.st_size));
  throw Error(join(path_.string(), ": cannot be written: ", std::strerror(cause)));
}

}  // namespace switchyard
