#include "base/messages.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include "base/progress.h"

namespace switchyard {
namespace {

int terminal_width(std::FILE* output) {
  winsize size{};
  return ::ioctl(::fileno(output), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

struct Current {
  std::mutex mutex;
  std::shared_ptr<MessageSink> sink;
};

// One for the process, like its stderr: as an argument it would pass through every function that reads a file.
Current& current() {
  static Current instance;
  return instance;
}

}  // namespace

FileMessages::FileMessages(std::FILE* output) : output_(output), is_terminal_(::isatty(::fileno(output)) == 1) {}

void FileMessages::message(const std::string& line) {
  const std::lock_guard lock(mutex_);
  std::fprintf(output_, "%s%s\n", is_open_ ? "\r\033[K" : "", line.c_str());
  std::fflush(output_);
  is_open_ = false;  // progress is drawn again below the message
}

void FileMessages::progress(const ProgressLine& line) {
  const std::lock_guard lock(mutex_);
  if (is_terminal_)
    std::fprintf(output_, "\r%s\033[K", format_progress(line, terminal_width(output_) - 1).c_str());
  else
    std::fprintf(output_, "%s\n", format_progress(line, 0).c_str());
  std::fflush(output_);
  is_open_ = is_terminal_;
}

void FileMessages::end_progress() {
  const std::lock_guard lock(mutex_);
  if (!is_open_) return;
  std::fputc('\n', output_);
  std::fflush(output_);
  is_open_ = false;
}

std::shared_ptr<MessageSink> message_sink() {
  const std::lock_guard lock(current().mutex);
  if (!current().sink) current().sink = std::make_shared<FileMessages>(stderr);
  return current().sink;
}

void set_message_sink(std::shared_ptr<MessageSink> sink) {
  const std::lock_guard lock(current().mutex);
  current().sink = std::move(sink);
}

}  // namespace switchyard
