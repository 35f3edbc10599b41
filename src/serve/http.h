// What answers over HTTP share: JSON, errors in OpenAI's form, and one route to a server's paths.
#pragma once

#include <httplib.h>

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <set>
#include <string>

#include "base/json.h"
#include "serve/access_log.h"

namespace switchyard {

std::string dump_json(const Json& json);  // bytes that are not UTF-8 become U+FFFD
void answer_json(httplib::Response& response, const Json& json);
void answer_error(httplib::Response& response, int status, const std::string& message);

// httplib's server with errors, limits and the access log as all of this program's have them. Errors of handlers become
// statuses: QueueFull 429, Ending 503, other Errors 400, the rest 500.
class HttpServer {
 public:
  struct Options {
    std::string host = "127.0.0.1";
    int port = 8080;  // 0: any that is free
    size_t body_bytes = 1 << 20;
    int timeout_seconds = 30;  // longest wait for a client's next bytes
    int threads = 64;          // connections that are served at a time; more wait
    bool json_log = false;     // access log as JSON on stdout
  };
  // Hears of every answer; the path is one of those added, or "other".
  using Counter = std::function<void(const std::string& path, int status)>;

  explicit HttpServer(const Options& options);
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  void get(const std::string& path, httplib::Server::Handler handler);
  void post(const std::string& path, httplib::Server::Handler handler);
  // Asks every request but those for `open` paths for this key.
  void ask_for_key(const std::string& key, std::set<std::string> open);
  void count(Counter counter) { counter_ = std::move(counter); }

  // Throws Error if it cannot listen there.
  void listen();
  int port() const { return port_; }
  // Serves until stop(); returns when all answers that had begun are whole.
  void run() { http_.listen_after_bind(); }
  // From any thread: what comes from now on is refused (503). Waits for the answers that had begun.
  void stop();

 private:
  httplib::Server::HandlerResponse begin(const httplib::Request& request, httplib::Response& response);
  void note(const httplib::Request& request, const httplib::Response& response);

  const Options options_;
  httplib::Server http_;
  AccessLog log_;
  std::set<std::string> paths_, open_;
  std::string key_;
  Counter counter_;
  int port_ = 0;
  std::mutex mutex_;
  std::condition_variable answered_;
  int64_t answering_ = 0;  // requests that were not refused and whose answers are not whole
  bool stopping_ = false;
};

}  // namespace switchyard
