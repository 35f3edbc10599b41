#include "serve/http.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/messages.h"
#include "serve/completion.h"
#include "serve/engine.h"

namespace switchyard {
namespace {

constexpr size_t kRequestsAConnection = 1000;
constexpr int kWaitingConnections = 512;

// This thread's present request, for which httplib has no place.
struct Present {
  double start = 0.0;       // 0 before its headers are whole
  bool is_counted = false;  // among those that stop() waits for
};
thread_local Present present;

// Compares in a time that does not depend on where the two differ.
bool are_equal(const std::string& given, const std::string& secret) {
  unsigned char difference = given.size() == secret.size() ? 0 : 1;
  for (size_t n = 0; n < given.size(); ++n)
    difference |= static_cast<unsigned char>(given[n]) ^
                  static_cast<unsigned char>(secret[n % std::max<size_t>(1, secret.size())]);
  return difference == 0;
}

void answer_exception(httplib::Response& response, std::exception_ptr exception) {
  try {
    std::rethrow_exception(std::move(exception));
  } catch (const QueueFull& error) {
    answer_error(response, 429, error.what());
  } catch (const Ending& error) {
    answer_error(response, 503, error.what());
  } catch (const Error& error) {
    answer_error(response, 400, error.what());
  } catch (const std::exception& error) {
    say("serve: ", error.what());
    answer_error(response, 500, "an internal error; the server's log has more");
  }
}

// What httplib answers by itself has a status and no words.
void answer_status(const httplib::Request& request, httplib::Response& response) {
  if (!response.body.empty()) return;
  std::string words = "the request is not understood";
  if (response.status == 404) words = request.method + " " + request.path.substr(0, 200) + ": no such place";
  if (response.status == 413)
    words = "the body is larger than is taken (8 KiB unless it is sent as Content-Type: application/json)";
  answer_error(response, response.status, words);
}

}  // namespace

std::string dump_json(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

void answer_json(httplib::Response& response, const Json& json) {
  response.set_content(dump_json(json), "application/json");
}

void answer_error(httplib::Response& response, int status, const std::string& message) {
  response.status = status;
  answer_json(response, error_json(status, message));
  if (status == 429) response.set_header("Retry-After", "1");
}

HttpServer::HttpServer(const Options& options) : options_(options), log_(options.json_log) {
  http_.new_task_queue = [this] { return new httplib::ThreadPool(static_cast<size_t>(options_.threads)); };
  http_.set_payload_max_length(options_.body_bytes);
  http_.set_read_timeout(options_.timeout_seconds);
  http_.set_write_timeout(options_.timeout_seconds);
  http_.set_keep_alive_max_count(kRequestsAConnection);
  http_.set_tcp_nodelay(true);  // a stream's events are small, and wait for nothing
  http_.set_pre_routing_handler([this](const auto& request, auto& response) { return begin(request, response); });
  http_.set_exception_handler(
      [](const auto&, auto& response, std::exception_ptr exception) { answer_exception(response, exception); });
  http_.set_error_handler(
      [](const httplib::Request& request, httplib::Response& response) { answer_status(request, response); });
  http_.set_logger([this](const auto& request, const auto& response) { note(request, response); });
}

void HttpServer::get(const std::string& path, httplib::Server::Handler handler) {
  paths_.insert(path);
  http_.Get(path, std::move(handler));
}

void HttpServer::post(const std::string& path, httplib::Server::Handler handler) {
  paths_.insert(path);
  http_.Post(path, std::move(handler));
}

void HttpServer::ask_for_key(const std::string& key, std::set<std::string> open) {
  key_ = key;
  open_ = std::move(open);
}

void HttpServer::listen() {
  // httplib lets five connections wait to be accepted; one more that comes at the same moment would be reset.
  int socket = -1;
  http_.set_socket_options([&socket](int made) {
    httplib::default_socket_options(made);
    socket = made;
  });
  if (options_.port == 0)
    port_ = http_.bind_to_any_port(options_.host);
  else
    port_ = http_.bind_to_port(options_.host, options_.port) ? options_.port : -1;
  SY_CHECK(port_ > 0, "cannot listen at ", options_.host, ":", options_.port,
           ": it is taken or not this machine's; choose another --host or --port");
  http_.set_socket_options(httplib::default_socket_options);
  SY_CHECK(::listen(socket, kWaitingConnections) == 0, "cannot listen at ", options_.host, ":", port_, ": ",
           std::strerror(errno));
}

void HttpServer::stop() {
  {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    // httplib's stop() cuts answers off: it asks for no further piece of them.
    answered_.wait(lock, [&] { return answering_ == 0; });
  }
  http_.stop();
}

httplib::Server::HandlerResponse HttpServer::begin(const httplib::Request& request, httplib::Response& response) {
  using Handled = httplib::Server::HandlerResponse;
  present.start = steady_seconds();
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) {
      answer_error(response, 503, "the server is about to end");
      return Handled::Handled;
    }
    present.is_counted = true;
    ++answering_;
  }
  if (key_.empty() || open_.contains(request.path)) return Handled::Unhandled;
  if (are_equal(request.get_header_value("Authorization"), "Bearer " + key_)) return Handled::Unhandled;
  answer_error(response, 401, "the API key is missing or wrong: send Authorization: Bearer KEY");
  return Handled::Handled;
}

// httplib calls it when an answer is whole or its client gone.
void HttpServer::note(const httplib::Request& request, const httplib::Response& response) {
  const auto [start, is_counted] = std::exchange(present, {});
  if (is_counted) {
    const std::lock_guard lock(mutex_);
    if (--answering_ == 0) answered_.notify_all();
  }
  if (counter_) counter_(paths_.contains(request.path) ? request.path : "other", response.status);
  log_.note({.client = request.remote_addr,
             .method = request.method,
             .path = request.path,
             .status = response.status,
             .seconds = start > 0.0 ? steady_seconds() - start : 0.0});
}

}  // namespace switchyard
