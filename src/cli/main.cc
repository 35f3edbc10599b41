// switchyard: one program for the whole life of a Switch Transformer. This file is the table of its commands.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <span>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/error.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/standard_output.h"
#include "kernels/instruction_set.h"
#include "parallel/collective_failure.h"

namespace switchyard {
namespace {

// The parser would only say that an argument was not expected.
void check_command(const CLI::App& app, std::span<char* const> words) {
  const auto commands = app.get_subcommands({});
  if (words.empty() || commands.empty() || words.front()[0] == '-') return;
  const std::string name = words.front();
  std::vector<std::string> names;
  std::string list;
  for (const auto* command : commands) {
    if (command->get_name() == name) return check_command(*command, words.subspan(1));
    names.push_back(command->get_name());
    list += (list.empty() ? "" : ", ") + command->get_name();
  }
  throw Error(join("unknown command \"", name, "\"", nearest_hint(name, names), "; known: ", list));
}

int run(int argc, char** argv) {
  (void)kernels::instruction_set();  // refuses a wrong SWITCHYARD_ISA
  CLI::App app(
      "Switchyard: train, run and study Switch Transformers (sparse T5 models).\n"
      "Example: switchyard train run.toml --out runs/mini",
      "switchyard");
  app.require_subcommand(1);
  app.set_version_flag("--version", SWITCHYARD_VERSION);
  app.get_formatter()->column_width(34);
  app.failure_message(CLI::FailureMessage::simple);
  add_vocab(app);
  add_train(app);
  add_distill(app);
  add_compare(app);
  add_ladder(app);
  add_eval(app);
  add_generate(app);
  add_embed(app);
  add_forward(app);
  add_inspect(app);
  add_convert(app);
  add_bench(app);
  add_report(app);
  add_plan(app);
  add_serve(app);
  add_watch(app);
  check_command(app, {argv + 1, static_cast<size_t>(argc - 1)});
  try {
    app.parse(argc, argv);
  } catch (const CLI::RuntimeError& error) {
    return error.get_exit_code();  // 130: stopped by Ctrl-C, everything saved
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return 0;
}

int fail(int code, const char* kind, const std::exception& error) {
  std::fprintf(stderr, "switchyard: %s%s\n", kind, error.what());
  return code;
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  switchyard::keep_freed_memory();
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of writing, not the end of a run that still has to save
  try {
    const int code = switchyard::run(argc, argv);
    switchyard::flush_standard_output();
    return code;
  } catch (const switchyard::Error& error) {
    return switchyard::fail(2, "", error);
  } catch (const switchyard::CollectiveFailure& error) {
    switchyard::fail(1, "", error);
    std::fflush(nullptr);
    ::_exit(1);
  } catch (const switchyard::OutputError& error) {
    return switchyard::fail(1, "", error);
  } catch (const std::exception& error) {
    return switchyard::fail(1, "internal error: ", error);
  }
}
