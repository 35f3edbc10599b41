// A page of runs that are being trained: curves as they grow, samples, routing, time left.
// GET / (the page), /state (serve/run_state.h), /sections (a report's, as HTML), /health.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "report/run_log.h"

namespace switchyard {

class WatchServer {
 public:
  struct Options {
    std::string host = "127.0.0.1";
    int port = 8081;  // 0: any that is free
    std::filesystem::path folder;
    bool json_log = false;
  };
  // The folder is one of `train` or of `compare`, and may have no metrics yet. Throws Error if it cannot listen there.
  explicit WatchServer(const Options& options);
  ~WatchServer();
  WatchServer(const WatchServer&) = delete;
  WatchServer& operator=(const WatchServer&) = delete;

  // From any thread. Samples take the place of earlier ones.
  void show_samples(std::vector<BlankSample> samples);

  int port() const;
  void run();   // until stop()
  void stop();  // from any thread

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace switchyard
