// switchyard: one program for the whole life of a Switch Transformer. This file is the table of its commands.
#include <malloc.h>

#include <climits>
#include <cstdio>
#include <exception>

#include "base/error.h"
#include "cli/commands.h"

int main(int argc, char** argv) {
  // Keep large blocks in the heap rather than mapping and faulting them at every allocation: training allocates the
  // same tensors each step, and this makes a step up to 2.7 times faster.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, INT_MAX);

  CLI::App app(
      "Switchyard: train, run and study Switch Transformers (sparse T5 models).\n"
      "Example: switchyard train run.toml --out runs/mini");
  app.require_subcommand(1);
  app.set_version_flag("--version", SWITCHYARD_VERSION);
  app.get_formatter()->column_width(34);
  app.failure_message(CLI::FailureMessage::simple);
  switchyard::add_vocab(app);
  switchyard::add_train(app);
  switchyard::add_compare(app);
  switchyard::add_eval(app);
  switchyard::add_generate(app);
  switchyard::add_forward(app);
  switchyard::add_inspect(app);
  switchyard::add_convert(app);
  switchyard::add_bench(app);
  switchyard::add_report(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::RuntimeError& error) {
    return error.get_exit_code();  // 130: stopped by Ctrl-C, everything saved
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const switchyard::Error& error) {
    std::fprintf(stderr, "switchyard: %s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "switchyard: internal error: %s\n", error.what());
    return 1;
  }
  return 0;
}
