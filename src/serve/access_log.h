// One line a request: who asked for what, the status, and how long the answer took.
#pragma once

#include <cstdio>
#include <mutex>
#include <string>

namespace switchyard {

struct Access {
  std::string client, method, path;
  int status = 0;
  double seconds = 0.0;  // until the last byte of the answer
};

// Thread-safe.
class AccessLog {
 public:
  // Lines for people among the program's messages, or JSON on stdout: {"time", "client", "method", "path", "status",
  // "seconds"}, the time in seconds since 1970.
  explicit AccessLog(bool json) : json_(json) {}
  void note(const Access& access);

 private:
  const bool json_;
  std::mutex mutex_;
};

}  // namespace switchyard
