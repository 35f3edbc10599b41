// A progress line on stderr for any loop with a known end. On a terminal it is redrawn in place, at most five times a
// second and within the terminal's width; elsewhere a plain line appears each tenth of the way and each minute.
#pragma once

#include <cstdio>
#include <functional>
#include <string>

namespace switchyard {

struct ProgressOptions {
  std::string name;            // "train"
  std::string unit = "steps";  // "s": done and total are shown as times
  bool quiet = false;          // nothing is written
  std::FILE* output = stderr;
  std::function<double()> clock = {};  // seconds; empty: the steady clock
};

// What one line shows.
struct ProgressLine {
  std::string name, unit, text;
  double done = 0.0, total = 0.0;
  double elapsed = 0.0;  // seconds
  double left = -1.0;    // seconds; negative: not known yet
};

// The line with a bar, at most `width` columns (ASCII): the text gives way first, then the bar. Width 0: plain, no bar.
std::string format_progress(const ProgressLine& line, int width);

// 75 -> "1:15", 3725 -> "1:02:05", 90061 -> "1d 1:01:01".
std::string format_duration(double seconds);

class Progress {
 public:
  Progress(ProgressOptions options, double total);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  // ends the line, so that an error message begins on one of its own

  // `done` of `total` is complete; `text` says the rest (loss, tokens a second). The first call sets where the time
  // that is left is counted from, so that a resumed run does not count work of an earlier one.
  void update(double done, const std::string& text);

  // Shows the last state and ends the line. Later calls of update() do nothing.
  void finish();

 private:
  void draw(double now);
  void end_line();

  ProgressOptions options_;
  ProgressLine line_;
  bool is_terminal_ = false, is_open_ = false, is_finished_ = false, is_stale_ = false;
  double start_ = 0.0, drawn_at_ = -1.0, drawn_done_ = 0.0;
  double base_time_ = -1.0, base_done_ = 0.0;
};

}  // namespace switchyard
