// A model behind HTTP: completions in OpenAI's form, streamed or whole, and what operators look at.
// POST /v1/completions, /tokenize, /detokenize; GET /health, /v1/models, /metrics.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "serve/completion.h"
#include "serve/engine.h"

namespace switchyard {

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 8080;        // 0: any that is free
  std::string model;      // the name under which clients see it
  std::string api_key;    // empty: none is asked for
  bool json_log = false;  // access log: one line of JSON a request in place of text
  size_t body_bytes = 1 << 20;
  int timeout_seconds = 30;  // longest wait for a client's next bytes
  int threads = 64;          // connections that are served at a time
  RequestLimits limits = {};
};

class Server {
 public:
  // Model, vocabulary and engine outlive the server. Throws Error if it cannot listen there.
  Server(const ServerOptions& options, const Vocabulary& vocabulary, Engine& engine);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int port() const;
  // Serves until stop(); returns when all answers that had begun are whole.
  void run();
  // From any thread: no further connection is taken.
  void stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace switchyard
