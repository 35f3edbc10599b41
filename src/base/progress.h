// Progress of work with a known end, told to the process's message sink: at most five times a second where it redraws,
// else each tenth of the way and each minute. Work that is done within two seconds says nothing.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/messages.h"

namespace switchyard {

struct ProgressOptions {
  std::string name;                        // "train"
  std::string unit = "steps";              // "s": done and total are shown as times
  bool quiet = false;                      // nothing is said
  double after_seconds = 2.0;              // nothing is said before; work that is known to take longer sets 0
  std::shared_ptr<MessageSink> sink = {};  // empty: the process's
  std::function<double()> clock = {};      // seconds; empty: the steady clock
};

// The line with a bar, at most `width` columns (ASCII): the text gives way first, then the bar. Width 0: plain, no bar.
std::string format_progress(const ProgressLine& line, int width);

// 75 -> "1:15", 3725 -> "1:02:05", 90061 -> "1d 1:01:01".
std::string format_duration(double seconds);

class Progress {
 public:
  Progress(ProgressOptions options, double total);  // total 0: not known
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  // ends the line, so that an error message begins on one of its own

  // `done` of `total` is complete; `text` says the rest (loss, tokens a second). The first call sets where the time
  // that is left is counted from, so that a resumed run does not count work of an earlier one.
  void update(double done, const std::string& text);

  // Shows the last state, if any was shown, and ends the line. Later calls of update() do nothing.
  void finish();

 private:
  void draw(double now);

  ProgressOptions options_;
  ProgressLine line_;
  bool is_finished_ = false, is_stale_ = false;
  double start_ = 0.0, drawn_at_ = -1.0, drawn_done_ = 0.0;
  double base_time_ = -1.0, base_done_ = 0.0;
};

}  // namespace switchyard
