#include "base/progress.h"

#include <algorithm>
#include <cmath>

#include "base/clock.h"

namespace switchyard {
namespace {

constexpr double kRedrawSeconds = 0.2;
constexpr double kPlainSeconds = 60.0;
constexpr double kPlainFraction = 0.1;

template <class... Values>
std::string printed(const char* format, Values... values) {
  char text[64];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

double fraction_of(const ProgressLine& line) {
  return line.total > 0 ? std::clamp(line.done / line.total, 0.0, 1.0) : 1.0;
}

std::string counts_of(const ProgressLine& line) {
  if (line.total <= 0) return printed("%.0f ", line.done) + line.unit;
  const std::string percent = printed("  %d%%", static_cast<int>(100.0 * fraction_of(line)));
  if (line.unit == "s") return format_duration(line.done) + "/" + format_duration(line.total) + percent;
  return printed("%.0f/%.0f ", line.done, line.total) + line.unit + percent;
}

std::string times_of(const ProgressLine& line) {
  std::string elapsed = "  " + format_duration(line.elapsed);
  if (line.total <= 0 || line.done >= line.total) return elapsed;
  return elapsed + (line.left < 0 ? " < ?" : " < " + format_duration(line.left));
}

}  // namespace

std::string format_duration(double seconds) {
  const auto whole = static_cast<long long>(std::llround(std::clamp(seconds, 0.0, 1e12)));
  const long long days = whole / 86400, hours = whole / 3600 % 24, minutes = whole / 60 % 60;
  if (days > 0) return printed("%lldd %lld:%02lld:%02lld", days, hours, minutes, whole % 60);
  if (hours > 0) return printed("%lld:%02lld:%02lld", hours, minutes, whole % 60);
  return printed("%lld:%02lld", minutes, whole % 60);
}

std::string format_progress(const ProgressLine& line, int width) {
  const std::string head = line.name + "  ", counts = counts_of(line), times = times_of(line);
  const std::string text = line.text.empty() ? "" : "  " + line.text;
  if (width <= 0) return head + counts + text + times;
  constexpr int kShortestBar = 8, kLongestBar = 30;
  const auto room = static_cast<int>(width) -
                    static_cast<int>(head.size() + counts.size() + times.size() + 4);  // [bar] and two spaces
  const int bar_room = std::min(kLongestBar, room - static_cast<int>(text.size()));
  const int bar = line.total <= 0 ? 0 : bar_room >= kShortestBar ? bar_room : room >= kShortestBar ? kShortestBar : 0;
  std::string shown = head;
  if (bar > 0) {
    const auto full = static_cast<int>(std::floor(fraction_of(line) * bar));
    shown += "[" + std::string(full, '#') + std::string(bar - full, '.') + "]  ";
  }
  shown += counts;
  const int text_room = width - static_cast<int>(shown.size() + times.size());
  shown += text.substr(0, std::max(0, text_room));
  return (shown + times).substr(0, width);
}

Progress::Progress(ProgressOptions options, double total) : options_(std::move(options)) {
  if (!options_.clock) options_.clock = steady_seconds;
  if (!options_.sink) options_.sink = message_sink();
  line_.name = options_.name;
  line_.unit = options_.unit;
  line_.total = total;
  start_ = options_.clock();
}

Progress::~Progress() {
  if (drawn_at_ >= 0 && !is_finished_) options_.sink->end_progress();
}

void Progress::update(double done, const std::string& text) {
  if (options_.quiet || is_finished_) return;
  const double now = options_.clock();
  line_.done = done;
  line_.text = text;
  line_.elapsed = now - start_;
  is_stale_ = true;
  if (base_time_ < 0) {
    base_time_ = now;
    base_done_ = done;
  }
  line_.left = line_.total > 0 && done > base_done_ && now > base_time_
                   ? (now - base_time_) / (done - base_done_) * (line_.total - done)
                   : -1.0;
  if (line_.elapsed < options_.after_seconds) return;
  const double waited = now - drawn_at_;
  const bool is_first = drawn_at_ < 0;
  const bool is_due =
      options_.sink->redraws()
          ? waited >= kRedrawSeconds
          : waited >= kPlainSeconds || (line_.total > 0 && done - drawn_done_ >= kPlainFraction * line_.total);
  if (is_first || is_due) draw(now);
}

void Progress::draw(double now) {
  options_.sink->progress(line_);
  drawn_at_ = now;
  drawn_done_ = line_.done;
  is_stale_ = false;
}

void Progress::finish() {
  if (options_.quiet || is_finished_) return;
  is_finished_ = true;
  if (drawn_at_ < 0) return;
  if (is_stale_) draw(options_.clock());
  options_.sink->end_progress();
}

}  // namespace switchyard
