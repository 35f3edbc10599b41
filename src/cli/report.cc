// switchyard report: a page of curves, routing and samples from the folders of runs.
#include <iostream>

#include "base/files.h"
#include "base/messages.h"
#include "cli/commands.h"
#include "report/page.h"
#include "report/parts_section.h"

namespace switchyard {
namespace {

struct ReportCommand {
  std::vector<std::string> folders;
  std::string out = "report.html";
  bool json = false;
};

void run(const ReportCommand& command) {
  const auto input = read_runs({command.folders.begin(), command.folders.end()});
  const std::string page = make_page(input);
  write_file_atomically(command.out, page);
  if (command.json) {
    Json result{{"out", command.out}, {"runs", input.runs.size()}, {"bytes", page.size()}};
    if (auto parts = parts_to_json(input.runs); !parts.empty()) result["parts"] = std::move(parts);
    std::cout << result.dump() << "\n";
  } else {
    say(command.out, ": ",
        input.runs.empty() ? std::string("a ladder, ")
                           : join(input.runs.size(), input.runs.size() == 1 ? " run, " : " runs, "),
        page.size() / 1000, " KB");
  }
}

}  // namespace

void add_report(CLI::App& app) {
  auto command = std::make_shared<ReportCommand>();
  auto* report = app.add_subcommand("report", "Make one HTML page of runs: curves, routing, samples");
  report->add_option("folders", command->folders, "folders of runs, or of `switchyard compare`")->required();
  report->add_option("--out", command->out, "the page")->capture_default_str();
  report->add_flag("--json", command->json, "print one JSON object, nothing else");
  report->footer("Example: switchyard report runs/sparse runs/dense --out report.html");
  report->callback([command] { run(*command); });
}

}  // namespace switchyard
