// switchyard serve: a model behind HTTP.
#include "base/error.h"
#include "checkpoint/checkpoint_store.h"
#include "cli/commands.h"
#include "cli/compute_options.h"
#include "cli/expert_memory.h"
#include "cli/model_vocabulary.h"
#include "cli/server_command.h"
#include "cli/shared_model.h"
#include "serve/server.h"
#include "serve/statistics.h"

namespace switchyard {
namespace {

constexpr int64_t kMostConnections = 4096;

struct ServeCommand {
  std::string model;
  ServerOptions server;
  int64_t slots = 8, queue = 64, max_length = 512;
  ComputeOptions compute;
};

#ifdef SWITCHYARD_HAS_HTTPLIB

std::string expert_memory_metrics(const ExpertReads& reads) {
  MetricsText text;
  const auto number = [&](const char* name, const char* type, const char* help, int64_t value) {
    text.describe(name, type, help);
    text.add(name, {}, static_cast<double>(value));
  };
  number("switchyard_experts_wanted_total", "counter", "Experts that got tokens, over layers and passes.",
         reads.wanted);
  number("switchyard_experts_read_total", "counter", "Of these, those that were not in memory.", reads.read);
  number("switchyard_expert_bytes_read_total", "counter", "Bytes of experts read from files.", reads.bytes_read);
  number("switchyard_expert_bytes", "gauge", "Bytes of the experts in memory.", reads.bytes);
  return text.text();
}

void run(ServeCommand& command) {
  SY_CHECK(!command.model.empty(), "serve needs --model MODEL, for example: switchyard serve --model runs/mini");
  SY_CHECK(command.slots >= 1 && command.queue >= 1, "--slots ", command.slots, ", --queue ", command.queue,
           ": expected at least 1 of each");
  SY_CHECK(command.slots + command.queue <= kMostConnections, "--slots ", command.slots, " and --queue ", command.queue,
           ": at most ", kMostConnections, " together, as each connection has a thread");
  const auto folder = resolve_model_folder(command.model);
  apply(command.compute);
  const auto shared =
      open_shared_model(folder, dtype_of(command.compute.dtype.empty() ? "auto" : command.compute.dtype),
                        device_of(command.compute), command.compute.expert_memory);
  SY_CHECK(shared.mesh->world() == nullptr, "serve runs in one process; start it without a launcher");
  const auto vocabulary = open_vocabulary(folder, shared.model.config);
  Engine engine(shared.model.config, shared.model.weights, &vocabulary,
                {.session = {.rows = command.slots, .max_length = command.max_length}, .queue = command.queue});
  auto options = command.server;
  options.model = command.model;
  options.limits.max_tokens = command.max_length;
  options.limits.rows = command.slots;
  if (command.compute.expert_memory)
    options.more_metrics = [&shared] { return expert_memory_metrics(shared.model.experts->reads()); };
  catch_interrupts();
  Server server(options, vocabulary, engine);
  announce(command.model, options.host, server.port(), join(command.slots, " slots; "), options.json_log);
  const StopOnInterrupt stop(server, "serve: finishing what runs; no more is taken");
  server.run();
}

#else

void run(ServeCommand&) {
  throw Error(
      "this build has no server: cpp-httplib's header was not found; install it (libcpp-httplib-dev) and build anew");
}

#endif

}  // namespace

void add_serve(CLI::App& app) {
  auto command = std::make_shared<ServeCommand>();
  auto* serve = app.add_subcommand("serve", "Answer requests over HTTP: completions in OpenAI's form");
  serve->add_option("--model", command->model, "model directory, run, or RUN@best");
  serve->add_option("--host", command->server.host, "address to listen at; 0.0.0.0: all of this machine's")
      ->capture_default_str();
  serve->add_option("--port", command->server.port, "port; 0: any that is free")
      ->capture_default_str()
      ->check(CLI::Range(0, 65535));
  serve->add_option("--slots", command->slots, "sequences decoded together; beams and samples take one each")
      ->capture_default_str();
  serve->add_option("--queue", command->queue, "requests that may wait for slots; more are refused (429)")
      ->capture_default_str();
  serve->add_option("--max-length", command->max_length, "most tokens of an output, its beginning included")
      ->capture_default_str();
  serve
      ->add_option("--api-key", command->server.api_key,
                   "clients must send Authorization: Bearer KEY; better by a variable")
      ->envname("SWITCHYARD_API_KEY");
  serve->add_option("--timeout", command->server.request_seconds, "seconds after which a completion is cancelled")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  serve->add_flag("--json", command->server.json_log,
                  "on stdout one line of JSON for the server's address, then one a request");
  add_compute_options(*serve, command->compute);
  add_expert_memory(*serve, command->compute);
  serve->footer(
      "Example:\n  switchyard serve --model runs/mini --port 8080\n"
      "  curl http://127.0.0.1:8080/v1/completions -d '{\"prompt\": \"The <extra_id_0> sat.\", \"max_tokens\": 20}'");
  serve->callback([command] { run(*command); });
}

}  // namespace switchyard
