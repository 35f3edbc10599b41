#include "cli/line_reader.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace switchyard {
namespace {

bool has_input(int descriptor) {
  pollfd state{.fd = descriptor, .events = POLLIN, .revents = 0};
  return poll(&state, 1, /*timeout=*/0) > 0;
}

}  // namespace

std::optional<std::string> LineReader::next(bool wait) {
  while (true) {
    size_t end = buffer_.find('\n', searched_);
    if (end == buffer_.npos && ended_ && !buffer_.empty()) end = buffer_.size();
    if (end != buffer_.npos) {
      std::string line = buffer_.substr(0, end);
      if (!line.empty() && line.back() == '\r') line.pop_back();
      buffer_.erase(0, end + 1);
      searched_ = 0;
      return line;
    }
    if (ended_ || (!wait && !has_input(descriptor_))) return std::nullopt;
    searched_ = buffer_.size();
    std::array<char, 65536> piece;
    const ssize_t count = ::read(descriptor_, piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    SY_CHECK(count >= 0, "standard input: ", std::strerror(errno));
    ended_ = count == 0;
    buffer_.append(piece.data(), static_cast<size_t>(count));
  }
}

}  // namespace switchyard
