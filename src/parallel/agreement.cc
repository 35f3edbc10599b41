#include "parallel/agreement.h"

#include <algorithm>
#include <sstream>
#include <utility>
#include <vector>

#include "base/error.h"
#include "parallel/texts.h"

namespace switchyard {
namespace {

constexpr size_t kLongestValue = 200;

std::string shortened(const std::string& text) {
  return text.size() <= kLongestValue ? text : text.substr(0, kLongestValue) + "...";
}

// The first line in which two texts differ, of each, with its number where there are several.
std::pair<std::string, std::string> first_difference(const std::string& a, const std::string& b) {
  if (a.find('\n') == std::string::npos && b.find('\n') == std::string::npos)
    return {"\"" + shortened(a) + "\"", "\"" + shortened(b) + "\""};
  std::istringstream lines_a(a), lines_b(b);
  for (int64_t number = 1;; ++number) {
    std::string line_a, line_b;
    const bool has_a = static_cast<bool>(std::getline(lines_a, line_a)),
               has_b = static_cast<bool>(std::getline(lines_b, line_b));
    if (has_a && has_b && line_a == line_b) continue;
    const auto quoted = [&](bool has, const std::string& line) {
      return has ? join("line ", number, ": \"", shortened(line), "\"") : join("no line ", number);
    };
    if (!has_a && !has_b) return {"no newline at its end", "a newline at its end"};
    return {quoted(has_a, line_a), quoted(has_b, line_b)};
  }
}

std::string facts_text(const std::map<std::string, std::string>& facts) {
  std::vector<std::string> texts;
  for (const auto& [name, value] : facts) texts.insert(texts.end(), {name, value});
  return join_texts(texts);
}

// The first rank and fact that is not rank 0's; "" if there is none.
std::string first_disagreement(const ProcessGroup& group, const std::vector<std::string>& texts) {
  const auto first = split_texts(texts.at(0));
  for (size_t rank = 1; rank < texts.size(); ++rank) {
    if (texts[rank] == texts[0]) continue;
    const auto facts = split_texts(texts[rank]);
    const auto whose = join("rank ", group.world_rank(static_cast<int64_t>(rank)));
    for (size_t index = 0; index < std::max(facts.size(), first.size()); index += 2) {
      if (index >= facts.size() || index >= first.size() || facts[index] != first[index])
        return join(whose, " tells other facts about itself than rank ", group.world_rank(0),
                    ": they run different programs");
      if (facts[index + 1] == first[index + 1]) continue;
      const auto [of_first, of_rank] = first_difference(first[index + 1], facts[index + 1]);
      return join(whose, " has another ", facts[index], " than rank ", group.world_rank(0), ": ", of_rank, ", rank ",
                  group.world_rank(0), " has ", of_first);
    }
  }
  return "";
}

}  // namespace

void check_agreement(const ProcessGroup& group, const std::map<std::string, std::string>& facts) {
  const auto mine = facts_text(facts);
  const auto sums = group.gather_text("checksums of facts", std::to_string(checksum(mine)));
  if (std::all_of(sums.begin(), sums.end(), [&](const std::string& sum) { return sum == sums.front(); })) return;
  const auto found = first_disagreement(group, group.gather_text("facts", mine));
  SY_CHECK(found.empty(), found, "; start every rank with the same program and the same arguments");
}

}  // namespace switchyard
