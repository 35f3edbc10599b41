// switchyard report: a page of curves, routing and samples from the folders of runs.
#include <iostream>

#include "base/files.h"
#include "base/messages.h"
#include "cli/commands.h"
#include "report/page.h"
#include "report/parts_section.h"
#include "report/study_section.h"

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
    for (const auto& [source, document] : input.studies) result["studies"].push_back(study_tables(document, source));
    std::cout << result.dump() << "\n";
  } else {
    std::string content;
    const auto add = [&](size_t count, const char* one, const char* several) {
      if (count > 0) content += join(count, " ", count == 1 ? one : several, ", ");
    };
    add(input.runs.size(), "run", "runs");
    add(input.ladders.size(), "ladder", "ladders");
    add(input.studies.size(), "study", "studies");
    say(command.out, ": ", content, page.size() / 1000, " KB");
  }
}

}  // namespace

void add_report(CLI::App& app) {
  auto command = std::make_shared<ReportCommand>();
  auto* report = app.add_subcommand("report", "Make one HTML page of runs: curves, routing, samples");
  report->add_option("folders", command->folders, "folders of runs, of `switchyard compare` or `ladder`, or of a study")
      ->required();
  report->add_option("--out", command->out, "the page")->capture_default_str();
  report->add_flag("--json", command->json, "print one JSON object, nothing else");
  report->footer("Example: switchyard report runs/sparse runs/dense --out report.html");
  report->callback([command] { run(*command); });
}

}  // namespace switchyard
