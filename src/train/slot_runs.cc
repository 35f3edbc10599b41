#include "train/slot_runs.h"

#include <ATen/ops/empty.h>

#include <cinttypes>
#include <cstdio>
#include <map>

#include "base/slice.h"

namespace switchyard {
namespace {

struct SlotName {
  std::string whole;  // "<parameter>.<slot>"
  std::optional<Slice> experts;
};

SlotName parse(const std::string& name) {
  const auto open = name.find('['), close = name.find(']');
  Slice experts;
  if (open == std::string::npos || close == std::string::npos ||
      std::sscanf(name.c_str() + open, "[%" SCNd64 ":%" SCNd64 "]", &experts.begin, &experts.end) != 2)
    return {name, std::nullopt};
  return {name.substr(0, open) + name.substr(close + 1), experts};
}

// Experts of a slot, which without a run are all along its first axis.
Slice experts_of(const SlotName& name, const at::Tensor& tensor) {
  return name.experts.value_or(Slice{0, tensor.dim() > 0 ? tensor.size(0) : 1});
}

}  // namespace

SlotTensors assemble_slots(const SlotTensors& wanted, const SlotTensors& stored) {
  struct Run {
    Slice experts;
    at::Tensor tensor;
  };
  std::map<std::string, std::vector<Run>> runs;
  for (const auto& [name, tensor] : stored) {
    const auto parsed = parse(name);
    runs[parsed.whole].push_back({experts_of(parsed, tensor), tensor});
  }
  SlotTensors result;
  for (const auto& [name, like] : wanted) {
    const auto parsed = parse(name);
    const auto experts = experts_of(parsed, like);
    const auto found = runs.find(parsed.whole);
    if (found == runs.end()) continue;
    if (found->second.size() == 1 && found->second[0].experts == experts) {
      result.emplace_back(name, found->second[0].tensor);
      continue;
    }
    auto slot = at::empty(like.sizes(), found->second[0].tensor.options());
    int64_t filled = 0;
    for (const auto& run : found->second) {
      const int64_t begin = std::max(experts.begin, run.experts.begin), end = std::min(experts.end, run.experts.end);
      if (begin >= end || run.tensor.sizes().slice(1) != like.sizes().slice(1)) continue;
      slot.narrow(0, begin - experts.begin, end - begin)
          .copy_(run.tensor.narrow(0, begin - run.experts.begin, end - begin));
      filled += end - begin;
    }
    if (filled == experts.size()) result.emplace_back(name, slot);
  }
  return result;
}

}  // namespace switchyard
