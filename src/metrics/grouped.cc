#include "metrics/grouped.h"

#include <unordered_map>

#include "base/error.h"

namespace switchyard {

double group_exact_match(std::span<const std::string> groups, std::span<const int64_t> targets,
                         std::span<const int64_t> predictions) {
  SY_CHECK(groups.size() == targets.size() && targets.size() == predictions.size() && !groups.empty(),
           "metrics: ", groups.size(), " groups, ", targets.size(), " targets and ", predictions.size(),
           " predictions");
  std::unordered_map<std::string, bool> all_match;
  for (size_t n = 0; n < groups.size(); ++n) {
    const auto group = all_match.emplace(groups[n], true).first;
    group->second = group->second && targets[n] == predictions[n];
  }
  int64_t matches = 0;
  for (const auto& [unused, match] : all_match) matches += match ? 1 : 0;
  return 100.0 * static_cast<double>(matches) / static_cast<double>(all_match.size());
}

double group_parity(std::span<const std::string> groups, std::span<const int64_t> predictions) {
  SY_CHECK(groups.size() == predictions.size(), "metrics: ", groups.size(), " groups but ", predictions.size(),
           " predictions");
  struct Group {
    int64_t first = 0, size = 0;
    bool same = true;
  };
  std::unordered_map<std::string, Group> found;
  for (size_t n = 0; n < groups.size(); ++n) {
    auto& group = found[groups[n]];
    if (group.size++ == 0) group.first = predictions[n];
    group.same = group.same && predictions[n] == group.first;
  }
  int64_t same = 0, compared = 0;
  for (const auto& [unused, group] : found) {
    compared += group.size > 1 ? 1 : 0;
    same += group.size > 1 && group.same ? 1 : 0;
  }
  SY_CHECK(compared > 0, "metrics: parity needs groups of two examples or more");
  return 100.0 * static_cast<double>(same) / static_cast<double>(compared);
}

}  // namespace switchyard
