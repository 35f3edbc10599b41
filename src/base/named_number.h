// Numbers with names, as evaluators give them and logs and checkpoints keep them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

struct NamedNumber {
  std::string name;  // "eval_loss"
  double value = 0.0;
};

inline std::optional<double> find_number(const std::vector<NamedNumber>& numbers, std::string_view name) {
  for (const auto& number : numbers)
    if (number.name == name) return number.value;
  return std::nullopt;
}

}  // namespace switchyard
