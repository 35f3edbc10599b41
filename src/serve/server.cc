#include "serve/server.h"

#include <atomic>
#include <chrono>

#include "serve/conversation.h"
#include "serve/http.h"
#include "serve/inquiries.h"
#include "serve/pages.h"
#include "serve/statistics.h"

namespace switchyard {
namespace {

constexpr auto kLookAtClient = std::chrono::milliseconds(100);

// Connections for which there is neither a slot nor a place in the queue: they are told so, ask for health or metrics.
constexpr int kSpareThreads = 24;

int64_t seconds_since_1970() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

HttpServer::Options http_options(const ServerOptions& options, const EngineOptions& engine) {
  return {.host = options.host,
          .port = options.port,
          .body_bytes = options.body_bytes,
          .timeout_seconds = options.timeout_seconds,
          .threads = static_cast<int>(engine.session.rows + engine.queue) + kSpareThreads,
          .json_log = options.json_log};
}

bool write(httplib::DataSink& sink, const std::string& text) { return sink.write(text.data(), text.size()); }

bool finish(httplib::DataSink& sink, const std::string& text) {
  if (!write(sink, text)) return false;
  sink.done();
  return true;
}

std::string event(const Json& json) { return "data: " + dump_json(json) + "\n\n"; }

}  // namespace

struct Server::State {
  ServerOptions options;
  const Vocabulary& vocabulary;
  Engine& engine;
  ServerStatistics statistics;
  HttpServer http;
  std::atomic<uint64_t> next_id = 0;

  State(const ServerOptions& given, const Vocabulary& words, Engine& runner)
      : options(given), vocabulary(words), engine(runner), http(http_options(given, runner.options())) {
    if (!options.api_key.empty()) http.ask_for_key(options.api_key, {"/", "/health"});
    http.count([this](const std::string& path, int status) { statistics.count_response(path, status); });
    add_looks();
    add_questions();
    http.post("/v1/completions", [this](const auto& request, auto& response) { complete(request, response); });
    http.listen();
  }

  void add_looks() {
    http.get("/", [](const auto&, auto& response) { response.set_content(serve_page(), "text/html; charset=utf-8"); });
    http.get("/health", [](const auto&, auto& response) { answer_json(response, {{"status", "ok"}}); });
    http.get("/v1/models", [this](const auto&, auto& response) {
      answer_json(response,
                  {{"object", "list"},
                   {"data", Json::array({{{"id", options.model}, {"object", "model"}, {"owned_by", "switchyard"}}})}});
    });
    http.get("/props", [this](const auto&, auto& response) { answer_json(response, props()); });
    http.get("/metrics", [this](const auto&, auto& response) {
      const auto& session = engine.options().session;
      response.set_content(statistics.text({.queued = engine.num_waiting(),
                                            .running = engine.num_running(),
                                            .rows = session.rows,
                                            .queue = engine.options().queue}) +
                               engine.expert_load().text() + (options.more_metrics ? options.more_metrics() : ""),
                           "text/plain; version=0.0.4");
    });
  }

  void add_questions() {
    http.post("/tokenize", [this](const auto& request, auto& response) {
      answer_json(response, tokenize(request.body, vocabulary, options.limits));
    });
    http.post("/detokenize", [this](const auto& request, auto& response) {
      answer_json(response, detokenize(request.body, vocabulary, options.limits));
    });
    http.post("/routing", [this](const auto& request, auto& response) {
      const auto question = read_routing_question(request.body, vocabulary, options.limits);
      Json answer;
      engine.compute([&] { answer = routing_json(engine.config(), engine.weights(), vocabulary, question); });
      answer_json(response, answer);
    });
    http.post("/v1/embeddings", [this](const auto& request, auto& response) {
      const auto question = read_embedding_question(request.body, vocabulary, options.limits);
      SY_CHECK(!question.of_each_token, "pooling: /v1/embeddings gives mean vectors; /embeddings gives one a token");
      answer_json(response, openai_embeddings_json(question, vectors(question), options.model));
    });
    http.post("/embeddings", [this](const auto& request, auto& response) {
      const auto question = read_embedding_question(request.body, vocabulary, options.limits);
      answer_json(response, embeddings_json(vectors(question)));
    });
  }

  std::vector<at::Tensor> vectors(const EmbeddingQuestion& question) {
    std::vector<at::Tensor> result;
    engine.compute([&] { result = embed(engine.config(), engine.weights(), question); });
    for (const auto& ids : question.inputs) statistics.tokens_in += static_cast<int64_t>(ids.size());
    return result;
  }

  Json props() const {
    const auto& session = engine.options().session;
    return props_json({.model = options.model,
                       .slots = session.rows,
                       .queue = engine.options().queue,
                       .max_length = session.max_length,
                       .limits = options.limits},
                      engine.config(), vocabulary);
  }

  // A completion that is refused is so before its answer begins, with a status of its own. One that fails later says so
  // in its body.
  void complete(const httplib::Request& request, httplib::Response& response) {
    const auto talk =
        Conversation::begin(read_completion(request.body, vocabulary, options.limits), vocabulary, engine, statistics);
    const CompletionName name{join("cmpl-", next_id++), options.model, seconds_since_1970()};
    const bool streams = talk->completion().stream;
    response.set_chunked_content_provider(
        streams ? "text/event-stream" : "application/json",
        [this, talk, name, streams](size_t, httplib::DataSink& sink) {
          return streams ? stream(*talk, name, sink) : whole(*talk, name, sink);
        },
        [talk](bool) { talk->end(); });
  }

  // Takes what has come. What went wrong, if something did.
  std::optional<Json> listen_to(Conversation& talk) const {
    try {
      talk.wait(kLookAtClient);
      if (talk.is_done() || talk.seconds() < options.request_seconds) return std::nullopt;
      return error_json(503, join("the completion took longer than ", options.request_seconds, " s and was cancelled"));
    } catch (const Error& error) {
      return error_json(503, error.what());
    }
  }

  // Waits for all answers, and sends them as one document. False cuts the connection.
  bool whole(Conversation& talk, const CompletionName& name, httplib::DataSink& sink) const {
    while (!talk.is_done()) {
      const auto error = listen_to(talk);
      if (!sink.is_writable()) return false;
      if (error) return finish(sink, dump_json(*error));
    }
    return finish(sink, dump_json(completion_json(name, talk.completion(), talk.answers(), vocabulary)));
  }

  // Sends what has come as events.
  bool stream(Conversation& talk, const CompletionName& name, httplib::DataSink& sink) const {
    const auto error = listen_to(talk);
    if (!sink.is_writable()) return false;
    if (error) return finish(sink, event(*error) + "data: [DONE]\n\n");
    std::string events;
    for (const auto& piece : talk.take_pieces()) events += event(chunk_json(name, piece));
    if (talk.is_done()) return finish(sink, events + "data: [DONE]\n\n");
    return events.empty() || write(sink, events);
  }
};

Server::Server(const ServerOptions& options, const Vocabulary& vocabulary, Engine& engine)
    : state_(std::make_unique<State>(options, vocabulary, engine)) {}

Server::~Server() = default;

int Server::port() const { return state_->http.port(); }

void Server::run() { state_->http.run(); }

void Server::stop() { state_->http.stop(); }

}  // namespace switchyard
