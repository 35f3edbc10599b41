#include "serve/server.h"

#include <httplib.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>

#include "base/clock.h"
#include "base/messages.h"
#include "generate/text_stream.h"
#include "serve/statistics.h"

namespace switchyard {
namespace {

constexpr auto kLookAtClient = std::chrono::milliseconds(100);

// What the engine says of one client's requests, for the thread that answers it.
class Mailbox {
 public:
  struct Letter {
    size_t number = 0;  // of the request
    size_t sample = 0;
    std::optional<int32_t> token = {};    // or
    std::optional<Answered> answer = {};  // the request's end, or
    std::string error = {};
  };

  void put(Letter letter) {
    {
      const std::lock_guard lock(mutex_);
      letters_.push_back(std::move(letter));
    }
    arrived_.notify_one();
  }
  // The next letter, or none after a moment.
  std::optional<Letter> take() {
    std::unique_lock lock(mutex_);
    if (!arrived_.wait_for(lock, kLookAtClient, [&] { return !letters_.empty(); })) return std::nullopt;
    auto letter = std::move(letters_.front());
    letters_.pop_front();
    return letter;
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Letter> letters_;
};

// Equal in a time that does not tell where they differ.
bool are_equal(const std::string& given, const std::string& secret) {
  unsigned char difference = given.size() == secret.size() ? 0 : 1;
  for (size_t n = 0; n < given.size(); ++n)
    difference |= static_cast<unsigned char>(given[n]) ^
                  static_cast<unsigned char>(secret[n % std::max<size_t>(1, secret.size())]);
  return difference == 0;
}

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

void answer_error(httplib::Response& response, int status, const std::string& message) {
  response.status = status;
  response.set_content(dump(error_json(status, message)), "application/json");
  if (status == 429) response.set_header("Retry-After", "1");
}

int64_t now() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// One client's completion on its way.
struct Conversation {
  std::string id;
  int64_t created = now();
  double start = steady_seconds(), last = 0.0;
  Completion completion;
  Mailbox mailbox;
  std::vector<uint64_t> tickets;
  std::vector<Answered> answers;  // as far as they have come
  std::vector<bool> is_answered;
  std::vector<TextStream> streams;  // of a stream's samples
  size_t num_ended = 0;
};

}  // namespace

struct Server::State {
  ServerOptions options;
  const Vocabulary& vocabulary;
  Engine& engine;
  ServerStatistics statistics;
  httplib::Server http;
  int port = 0;
  std::atomic<uint64_t> next_id = 0;

  State(const ServerOptions& given, const Vocabulary& words, Engine& runner)
      : options(given), vocabulary(words), engine(runner) {
    http.new_task_queue = [this] { return new httplib::ThreadPool(static_cast<size_t>(options.threads)); };
    http.set_payload_max_length(options.body_bytes);
    http.set_read_timeout(options.timeout_seconds);
    http.set_write_timeout(options.timeout_seconds);
    http.set_pre_routing_handler([this](const auto& request, auto& response) { return check_key(request, response); });
    http.set_exception_handler([](const auto&, auto& response, std::exception_ptr exception) {
      try {
        std::rethrow_exception(exception);
      } catch (const QueueFull& error) {
        answer_error(response, 429, error.what());
      } catch (const Error& error) {
        answer_error(response, 400, error.what());
      } catch (const std::exception& error) {
        answer_error(response, 500, error.what());
      }
    });
    http.set_error_handler([](const httplib::Request& request, httplib::Response& response) {
      if (!response.body.empty()) return;
      answer_error(response, response.status,
                   response.status == 404   ? request.method + " " + request.path + ": no such place"
                   : response.status == 413 ? "the body is larger than is taken"
                                            : "the request is not understood");
    });
    http.set_logger([this](const auto& request, const auto& response) { log(request, response); });
    add_routes();
    if (options.port == 0) {
      port = http.bind_to_any_port(options.host);
    } else {
      port = http.bind_to_port(options.host, options.port) ? options.port : -1;
    }
    SY_CHECK(port > 0, "cannot listen at ", options.host, ":", options.port,
             ": it is taken or not this machine's; choose another --host or --port");
  }

  httplib::Server::HandlerResponse check_key(const httplib::Request& request, httplib::Response& response) const {
    using Handled = httplib::Server::HandlerResponse;
    if (options.api_key.empty() || request.path == "/health") return Handled::Unhandled;
    if (are_equal(request.get_header_value("Authorization"), "Bearer " + options.api_key)) return Handled::Unhandled;
    answer_error(response, 401, "the API key is missing or wrong: send Authorization: Bearer KEY");
    return Handled::Handled;
  }

  void log(const httplib::Request& request, const httplib::Response& response) {
    const bool is_known = response.status != 404;
    statistics.count_response(is_known ? request.path : "other", response.status);
    if (options.json_log)
      say(dump({{"client", request.remote_addr},
                {"method", request.method},
                {"path", request.path},
                {"status", response.status}}));
    else
      say(request.remote_addr, " ", request.method, " ", request.path, " ", response.status);
  }

  static void answer(httplib::Response& response, const Json& json) {
    response.set_content(dump(json), "application/json");
  }

  void add_routes() {
    http.Get("/health", [](const auto&, auto& response) { answer(response, {{"status", "ok"}}); });
    http.Get("/v1/models", [this](const auto&, auto& response) {
      answer(response,
             {{"object", "list"},
              {"data", Json::array({{{"id", options.model}, {"object", "model"}, {"owned_by", "switchyard"}}})}});
    });
    http.Get("/metrics", [this](const auto&, auto& response) {
      response.set_content(statistics.text(engine.num_waiting(), engine.num_running(), engine.options().session.rows),
                           "text/plain; version=0.0.4");
    });
    http.Post("/tokenize", [this](const auto& request, auto& response) {
      const auto json = body_object(request);
      SY_CHECK(json.contains("content") && json.at("content").is_string(), "content is missing: expected a text");
      answer(response, {{"tokens", vocabulary.encode(json.at("content").template get<std::string>())}});
    });
    http.Post("/detokenize", [this](const auto& request, auto& response) {
      const auto json = body_object(request);
      SY_CHECK(json.contains("tokens"), "tokens is missing: expected a list of ids");
      std::vector<int64_t> ids;
      config_detail::read_value(json.at("tokens"), "tokens", ids);
      for (const int64_t id : ids)
        SY_CHECK(id >= 0 && id < vocabulary.size(), "tokens: ", id, " is no id of the vocabulary of ",
                 vocabulary.size());
      answer(response, {{"content", vocabulary.decode(std::vector<int32_t>(ids.begin(), ids.end()))}});
    });
    http.Post("/v1/completions", [this](const auto& request, auto& response) { complete(request, response); });
  }

  static Json body_object(const httplib::Request& request) {
    auto json = parse_json(request.body, "the request's body");
    SY_CHECK(json.is_object(), "the request's body: expected an object, got ", json.type_name());
    return json;
  }

  void complete(const httplib::Request& request, httplib::Response& response) {
    const auto talk = std::make_shared<Conversation>();
    talk->id = join("cmpl-", next_id++);
    talk->completion = read_completion(request.body, vocabulary, options.limits);
    const auto& requests = talk->completion.requests;
    talk->answers.resize(requests.size());
    talk->is_answered.resize(requests.size());
    if (talk->completion.stream)
      talk->streams.assign(static_cast<size_t>(requests[0].search.num_results),
                           TextStream(vocabulary, requests[0].stop));
    try {
      for (size_t number = 0; number < requests.size(); ++number) submit(talk, number);
    } catch (...) {
      cancel(*talk);
      throw;
    }
    const bool streams = talk->completion.stream;
    response.set_chunked_content_provider(
        streams ? "text/event-stream" : "application/json",
        [this, talk, streams](size_t, httplib::DataSink& sink) {
          return streams ? stream(*talk, sink) : whole(*talk, sink);
        },
        [this, talk](bool) { cancel(*talk); });
  }

  void submit(const std::shared_ptr<Conversation>& talk, size_t number) {
    const auto& request = talk->completion.requests[number];
    statistics.tokens_in += static_cast<int64_t>(request.ids.size());
    Listener listener{.on_token = [this, talk](size_t sample, int32_t id) { note_token(*talk, sample, id); },
                      .on_result =
                          [talk, number](const Request& asked, const Result& result) {
                            if (result.error.empty())
                              talk->mailbox.put({.number = number, .answer = Answered{asked, result.outputs}});
                            else
                              talk->mailbox.put({.number = number, .error = result.error});
                          }};
    talk->tickets.push_back(engine.submit(request, std::move(listener)));
  }

  // On the engine's thread.
  void note_token(Conversation& talk, size_t sample, int32_t id) {
    const double moment = steady_seconds();
    if (talk.last == 0.0)
      statistics.first_token.add(moment - talk.start);
    else
      statistics.next_token.add(moment - talk.last);
    talk.last = moment;
    if (talk.completion.stream) talk.mailbox.put({.sample = sample, .token = id});
  }

  // The requests of a client that has its answer, or went away.
  void cancel(Conversation& talk) {
    const bool is_cut = talk.num_ended < talk.completion.requests.size();
    if (is_cut && !talk.tickets.empty()) ++statistics.cancelled;
    for (const uint64_t ticket : std::exchange(talk.tickets, {}))
      if (is_cut) engine.cancel(ticket);
    if (!is_cut) statistics.request.add(steady_seconds() - talk.start);
  }

  void note_end(Conversation& talk, Mailbox::Letter& letter) {
    for (const auto& output : letter.answer->outputs) statistics.tokens_out += static_cast<int64_t>(output.ids.size());
    talk.answers[letter.number] = std::move(*letter.answer);
    ++talk.num_ended;
  }

  static bool write(httplib::DataSink& sink, const std::string& text) { return sink.write(text.data(), text.size()); }

  // Waits for all answers, and sends them as one document. False cuts the connection.
  bool whole(Conversation& talk, httplib::DataSink& sink) {
    while (talk.num_ended < talk.answers.size()) {
      auto letter = talk.mailbox.take();
      if (!sink.is_writable()) return false;
      if (!letter) continue;
      if (!letter->error.empty()) return finish(sink, dump(error_json(500, letter->error)));
      note_end(talk, *letter);
    }
    return finish(sink, dump(completion_json(talk.id, talk.created, options.model, talk.answers, vocabulary)));
  }

  static bool finish(httplib::DataSink& sink, const std::string& text) {
    if (!write(sink, text)) return false;
    sink.done();
    return true;
  }

  // Sends what the next letter says as an event.
  bool stream(Conversation& talk, httplib::DataSink& sink) {
    auto letter = talk.mailbox.take();
    if (!sink.is_writable()) return false;
    if (!letter) return true;
    if (!letter->error.empty())
      return finish(sink, "data: " + dump(error_json(500, letter->error)) + "\n\ndata: [DONE]\n\n");
    if (letter->token) {
      const auto text = talk.streams[letter->sample].add(*letter->token);
      return text.empty() || send_chunk(talk, sink, letter->sample, text, std::nullopt);
    }
    note_end(talk, *letter);
    const auto& [request, outputs] = talk.answers[0];
    for (size_t sample = 0; sample < outputs.size(); ++sample) {
      // Beams are not told token by token: their text comes at the end.
      const bool was_told = request.search.beams.num_beams == 1;
      const auto rest = was_told ? talk.streams[sample].finish() : output_text(request, outputs[sample], &vocabulary);
      if (!send_chunk(talk, sink, sample, rest, finish_reason(request, outputs[sample]))) return false;
    }
    return finish(sink, "data: [DONE]\n\n");
  }

  bool send_chunk(const Conversation& talk, httplib::DataSink& sink, size_t index, const std::string& text,
                  std::optional<std::string> reason) const {
    return write(
        sink,
        "data: " + dump(chunk_json(talk.id, talk.created, options.model, index, text, std::move(reason))) + "\n\n");
  }
};

Server::Server(const ServerOptions& options, const Vocabulary& vocabulary, Engine& engine)
    : state_(std::make_unique<State>(options, vocabulary, engine)) {}

Server::~Server() = default;

int Server::port() const { return state_->port; }

void Server::run() { state_->http.listen_after_bind(); }

void Server::stop() { state_->http.stop(); }

}  // namespace switchyard
