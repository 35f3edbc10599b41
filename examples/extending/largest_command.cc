// switchyard largest: the parameters of a preset that take the most memory.
#include "largest_command.h"

#include <algorithm>
#include <iostream>

#include "base/json.h"
#include "model/parameters.h"

namespace switchyard::examples {
namespace {

struct LargestCommand {
  std::string preset;
  int64_t count = 5;
  bool json = false;
};

void run(const LargestCommand& command) {
  auto specs = parameter_specs(preset(command.preset));
  std::stable_sort(specs.begin(), specs.end(), [](const auto& a, const auto& b) { return a.numel() > b.numel(); });
  specs.resize(std::min(specs.size(), static_cast<size_t>(command.count)));
  Json largest = Json::array();
  for (const auto& spec : specs) largest.push_back({{"name", spec.name}, {"parameters", spec.numel()}});
  if (command.json) {
    std::cout << Json{{"largest", largest}}.dump() << "\n";
    return;
  }
  for (const auto& spec : specs) std::cout << spec.name << " " << spec.numel() << "\n";
}

}  // namespace

void add_largest(CLI::App& app) {
  const auto command = std::make_shared<LargestCommand>();
  auto* largest = app.add_subcommand("largest", "List a preset's largest parameters");
  largest->add_option("preset", command->preset, "preset name")->required();
  largest->add_option("--count", command->count, "how many")->capture_default_str()->check(CLI::PositiveNumber);
  largest->add_flag("--json", command->json, "print one JSON object, nothing else");
  largest->footer("Example: largest switch-base-8 --count 3");
  largest->callback([command] { run(*command); });
}

}  // namespace switchyard::examples
