// A model behind HTTP: completions in OpenAI's form, streamed or whole, vectors, the experts that tokens take, and what
// operators look at.
// POST /v1/completions, /v1/embeddings, /embeddings, /tokenize, /detokenize, /routing;
// GET / (a page), /health, /v1/models, /props, /metrics.
#pragma once

#include <functional>
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
  bool json_log = false;  // access log as JSON on stdout in place of lines among the messages
  size_t body_bytes = 1 << 20;
  int timeout_seconds = 30;      // longest wait for a client's next bytes
  double request_seconds = 600;  // longest time for a completion; then it is cancelled
  RequestLimits limits = {};
  std::function<std::string()> more_metrics = {};  // what /metrics says besides, in Prometheus' form
};

class Server {
 public:
  // Vocabulary and engine outlive the server. Throws Error if it cannot listen there.
  Server(const ServerOptions& options, const Vocabulary& vocabulary, Engine& engine);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int port() const;
  // Serves until stop(); returns when all answers that had begun are whole.
  void run();
  // From any thread: what comes from now on is refused (503). Waits for the answers that had begun.
  void stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace switchyard
