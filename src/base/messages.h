// What libraries say to the person who runs a program: lines, and the progress of long work. A program decides where
// that goes by one sink for the process; at first it is the terminal's stderr.
#pragma once

#include <cstdio>
#include <memory>
#include <mutex>
#include <string>

#include "base/error.h"

namespace switchyard {

// What one line of progress shows.
struct ProgressLine {
  std::string name, unit, text;
  double done = 0.0, total = 0.0;  // total 0: not known
  double elapsed = 0.0;            // seconds
  double left = -1.0;              // seconds; negative: not known yet
};

// All functions may be called from any thread.
class MessageSink {
 public:
  virtual ~MessageSink() = default;
  virtual void message(const std::string& line) = 0;  // without '\n'
  virtual void progress(const ProgressLine& line) = 0;
  virtual void end_progress() = 0;  // nothing follows the last progress()
  // Whether progress is redrawn in place, and may so come five times a second instead of every tenth of the way.
  virtual bool redraws() const = 0;
};

// Lines to a file: on a terminal progress is one line, redrawn within its width; elsewhere each is a line of its own.
class FileMessages : public MessageSink {
 public:
  explicit FileMessages(std::FILE* output);
  void message(const std::string& line) override;
  void progress(const ProgressLine& line) override;
  void end_progress() override;
  bool redraws() const override { return is_terminal_; }

 private:
  std::FILE* output_;
  bool is_terminal_ = false, is_open_ = false;
  std::mutex mutex_;
};

// Says nothing: of several processes that run one program, all but the first.
class NoMessages : public MessageSink {
 public:
  void message(const std::string&) override {}
  void progress(const ProgressLine&) override {}
  void end_progress() override {}
  bool redraws() const override { return false; }
};

// The process's sink. set_message_sink(nullptr) brings the first one back, stderr.
std::shared_ptr<MessageSink> message_sink();
void set_message_sink(std::shared_ptr<MessageSink> sink);

// Says one line, put together of its parts.
template <class... Parts>
void say(const Parts&... parts) {
  message_sink()->message(join(parts...));
}

}  // namespace switchyard
