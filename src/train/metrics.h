// DIR/metrics.jsonl: one JSON object a line, in order of steps, appended with one write() each. Half a line can remain
// only where the process is killed or the machine fails inside that call; opening the file for the resumed run removes
// it.
#pragma once

#include <filesystem>

#include "base/config.h"

namespace switchyard {

class MetricsWriter {
 public:
  // Opens or makes the file and cuts off what a run resumed at `step` will write again: everything from the first line
  // with a greater step on, and a last line without its end. Throws Error if the file cannot be opened,
  // or holds a complete line that is not a JSON object.
  MetricsWriter(const std::filesystem::path& path, int64_t step);
  MetricsWriter(const MetricsWriter&) = delete;
  MetricsWriter& operator=(const MetricsWriter&) = delete;
  ~MetricsWriter();

  // Appends one object. Numbers are written with the digits that read back to the same double; NaN and infinity as
  // null. Throws Error if the disk is full or fails; the file then ends with its last whole line.
  void write(const Json& line);

  // Returns when all lines are on the disk. Throws Error if it fails.
  void sync();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace switchyard
