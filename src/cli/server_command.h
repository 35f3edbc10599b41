// What commands that serve until they are interrupted share.
#pragma once

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include "base/interrupt.h"
#include "base/messages.h"

namespace switchyard {

// Says where the server is, and with `json` prints {"serving", "at"} on a line of stdout.
void announce(const std::string& what, const std::string& host, int port, const std::string& remark, bool json);

// Stops the server after the first Ctrl-C or SIGTERM, until it goes.
template <class Server>
class StopOnInterrupt {
 public:
  StopOnInterrupt(Server& server, const std::string& last_words)
      : thread_([this, &server, last_words] {
          while (!ended_ && !interrupted()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
          if (!ended_ && !last_words.empty()) say(last_words);
          server.stop();
        }) {}
  StopOnInterrupt(const StopOnInterrupt&) = delete;
  StopOnInterrupt& operator=(const StopOnInterrupt&) = delete;
  ~StopOnInterrupt() {
    ended_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> ended_ = false;
  std::thread thread_;
};

}  // namespace switchyard
