// switchyard watch: a run that is being trained, as a page.
#include <ATen/Parallel.h>

#include "base/error.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/model_directory.h"
#include "cli/commands.h"
#include "cli/model_vocabulary.h"
#include "cli/samples.h"
#include "cli/server_command.h"
#include "serve/watch_server.h"

namespace switchyard {
namespace {

struct WatchCommand {
  WatchServer::Options server;
  std::string run;
  int64_t samples = 3;
};

#ifdef SWITCHYARD_HAS_HTTPLIB

// Fills blanks of held-out sentences with each new checkpoint, on one thread: the training wants the others.
class Sampler {
 public:
  Sampler(WatchServer& server, std::filesystem::path folder, int64_t count)
      : server_(server), folder_(std::move(folder)), count_(count), thread_([this] { run(); }) {}
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;
  ~Sampler() {
    ended_ = true;
    thread_.join();
  }

 private:
  void run() {
    at::set_num_threads(1);
    std::filesystem::path shown;
    std::string complaint;
    for (int turn = 0; !ended_ && count_ > 0; ++turn) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      if (turn % 20 != 0) continue;
      try {
        const auto checkpoint = newest();
        if (checkpoint.empty() || checkpoint == shown) continue;
        sample(checkpoint);
        shown = checkpoint;
      } catch (const std::exception& error) {
        // A checkpoint may be replaced while it is read; what stays wrong is said once.
        if (complaint != error.what()) say("watch: no samples: ", error.what());
        complaint = error.what();
      }
    }
  }

  std::filesystem::path newest() const {
    return std::filesystem::exists(folder_ / "checkpoints") ? resolve_model_folder(folder_) : std::filesystem::path();
  }

  void sample(const std::filesystem::path& checkpoint) const {
    const auto config = read_toml(folder_ / "run.toml").sections;
    std::vector<std::string> texts;
    if (config.contains("data") && config.at("data").contains("eval_text"))
      config_detail::read_value(config.at("data").at("eval_text"), "data.eval_text", texts);
    const auto model = open_for_inference(checkpoint.string(), at::kFloat, at::kCPU);
    const auto vocabulary = open_vocabulary(checkpoint, model.config);
    auto sentences = cut_blanks(texts, vocabulary, count_);
    const auto name = checkpoint.filename().string();
    fill_in(sentences, name, model.config, model.weights, vocabulary);
    std::vector<BlankSample> samples;
    for (const auto& sentence : sentences.samples)
      samples.push_back({.text = sentence.at("text").get<std::string>(),
                         .prompt = sentence.at("prompt").get<std::string>(),
                         .filled = {{name, sentence.at("filled").at(name).get<std::string>()}}});
    server_.show_samples(std::move(samples));
  }

  WatchServer& server_;
  const std::filesystem::path folder_;
  const int64_t count_;
  std::atomic<bool> ended_ = false;
  std::thread thread_;
};

void run(WatchCommand& command) {
  command.server.folder = command.run;
  SY_CHECK(std::filesystem::is_directory(command.server.folder), command.run,
           ": no such folder; name the --out folder of `switchyard train`");
  catch_interrupts();
  WatchServer server(command.server);
  announce(command.run, command.server.host, server.port(), "", command.server.json_log);
  const Sampler sampler(server, command.server.folder, command.samples);
  const StopOnInterrupt stop(server, "");
  server.run();
}

#else

void run(WatchCommand&) {
  throw Error(
      "this build has no server: cpp-httplib's header was not found; install it (libcpp-httplib-dev) and build anew");
}

#endif

}  // namespace

void add_watch(CLI::App& app) {
  auto command = std::make_shared<WatchCommand>();
  auto* watch = app.add_subcommand("watch", "Show a run in training as a page: curves, samples, routing, time left");
  watch->add_option("run", command->run, "folder of a run, or of `switchyard compare`")->required();
  watch->add_option("--host", command->server.host, "address to listen at; 0.0.0.0: all of this machine's")
      ->capture_default_str();
  watch->add_option("--port", command->server.port, "port; 0: any that is free")
      ->capture_default_str()
      ->check(CLI::Range(0, 65535));
  watch->add_option("--samples", command->samples, "held-out sentences that each new checkpoint fills in; 0: none")
      ->capture_default_str()
      ->check(CLI::Range(0, 100));
  watch->add_flag("--json", command->server.json_log,
                  "on stdout one line of JSON for the server's address, then one a request");
  watch->footer("Example: switchyard watch runs/mini --port 8081");
  watch->callback([command] { run(*command); });
}

}  // namespace switchyard
