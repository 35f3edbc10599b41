#include "serve/watch_server.h"

#include <mutex>

#include "base/clock.h"
#include "report/page.h"
#include "report/page_assets.h"
#include "serve/http.h"
#include "serve/pages.h"
#include "serve/run_state.h"

namespace switchyard {
namespace {

constexpr double kFresh = 1.0;  // seconds for which logs are not read anew, however many look
constexpr int kThreads = 8;

}  // namespace

struct WatchServer::State {
  const Options options;
  HttpServer http;
  std::mutex mutex;
  ReportInput input;
  std::vector<BlankSample> samples;
  double read_at = -kFresh, reading_took = 0.0;
  int64_t num_samplings = 0;

  explicit State(const Options& given)
      : options(given),
        http({.host = given.host, .port = given.port, .threads = kThreads, .json_log = given.json_log}) {
    http.get("/", [](const auto&, auto& response) {
      response.set_content(watch_page(kPageStyle, kPageScript), "text/html; charset=utf-8");
    });
    http.get("/health", [](const auto&, auto& response) { answer_json(response, {{"status", "ok"}}); });
    http.get("/state", [this](const auto&, auto& response) { answer_json(response, state()); });
    http.get("/sections", [this](const auto&, auto& response) {
      const std::lock_guard lock(mutex);
      read();
      response.set_content(make_sections(input), "text/html; charset=utf-8");
    });
    http.listen();
  }

  // Long logs take a while to read: they are read a tenth of the time at most.
  void read() {
    const double start = steady_seconds();
    if (start - read_at < std::max(kFresh, 10.0 * reading_took)) return;
    auto runs = read_runs({options.folder});
    if (!samples.empty()) runs.samples = samples;
    input = std::move(runs);
    read_at = steady_seconds();
    reading_took = read_at - start;
  }

  Json state() {
    const std::lock_guard lock(mutex);
    read();
    Json runs = Json::array();
    double steps = 0.0;
    size_t evaluations = 0;
    for (const auto& run : input.runs) {
      runs.push_back(run_state(run));
      steps += runs.back().at("step").template get<double>();
      evaluations += run.scalar("eval_loss").size();
    }
    return {{"runs", runs}, {"version", join(steps, "-", evaluations, "-", num_samplings)}};
  }
};

WatchServer::WatchServer(const Options& options) : state_(std::make_unique<State>(options)) {}

WatchServer::~WatchServer() = default;

void WatchServer::show_samples(std::vector<BlankSample> samples) {
  const std::lock_guard lock(state_->mutex);
  state_->samples = std::move(samples);
  ++state_->num_samplings;
  state_->read_at = -kFresh;
}

int WatchServer::port() const { return state_->http.port(); }

void WatchServer::run() { state_->http.run(); }

void WatchServer::stop() { state_->http.stop(); }

}  // namespace switchyard
