#include "serve/access_log.h"

#include <chrono>

#include "base/json.h"
#include "base/messages.h"

namespace switchyard {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

// A client's bytes must not write lines of their own, nor move a terminal's cursor.
std::string quoted(const std::string& text) { return Json(text).dump(-1, ' ', true, Json::error_handler_t::replace); }

}  // namespace

void AccessLog::note(const Access& access) {
  char seconds[32];
  std::snprintf(seconds, sizeof seconds, "%.3f", access.seconds);
  if (!json_)
    return say(access.client, " ", access.method, " ", quoted(access.path), " ", access.status, " ", seconds, " s");
  char time[32];
  std::snprintf(time, sizeof time, "%.3f", now());
  const auto line =
      join("{\"time\":", time, ",\"client\":", quoted(access.client), ",\"method\":", quoted(access.method),
           ",\"path\":", quoted(access.path), ",\"status\":", access.status, ",\"seconds\":", seconds, "}\n");
  const std::lock_guard lock(mutex_);
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fflush(stdout);
}

}  // namespace switchyard
