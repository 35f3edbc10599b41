#include "checkpoint/t5x_scanned.h"

#include <ATen/ops/equal.h>

#include "base/error.h"

namespace switchyard {
namespace {

constexpr int64_t kMaxLayers = 4096;
constexpr size_t kMaxArrays = size_t{1} << 16;  // T5-11B's layers have 700; a view of a few values is an array too
constexpr char kTable[] = "relpos_bias/rel_embedding";

bool same_in_all_layers(const at::Tensor& table) {
  for (int64_t layer = 1; layer < table.size(1); ++layer)
    if (!at::equal(table.select(1, 0), table.select(1, layer))) return false;
  return true;
}

}  // namespace

void unstack_scanned_layers(NamedTensors& arrays, const std::string& source) {
  NamedTensors unstacked;
  for (const std::string stack : {"encoder", "decoder"}) {
    const std::string prefix = stack + "/" + stack + "/";
    int64_t num_layers = 0;
    for (auto found = arrays.lower_bound(prefix); found != arrays.end() && found->first.starts_with(prefix);) {
      const auto& array = found->second;
      SY_CHECK(array.dim() >= 2 && array.size(1) > 0 && array.size(1) <= kMaxLayers, source, ": ",
               found->first.substr(0, 200), " has shape ", array.sizes(),
               "; expected a scanned array, with layers along axis 1");
      if (num_layers == 0) num_layers = array.size(1);
      SY_CHECK(array.size(1) == num_layers, source, ": ", found->first.substr(0, 200), " has ", array.size(1),
               " layers, other arrays of the ", stack, " have ", num_layers);
      const auto rest = found->first.substr(prefix.size());
      if (rest == kTable && same_in_all_layers(array))
        unstacked[stack + "/" + kTable] = array.select(1, 0);
      else
        for (int64_t layer = 0; layer < num_layers; ++layer)
          unstacked[join(stack, "/layers_", layer, "/", rest)] = array.select(1, layer);
      SY_CHECK(unstacked.size() <= kMaxArrays, source, ": more than ", kMaxArrays, " arrays of single layers");
      found = arrays.erase(found);
    }
  }
  for (auto& [name, array] : unstacked)
    SY_CHECK(arrays.emplace(name, array).second, source, ": ", name.substr(0, 200), " is there scanned and unscanned");
}

}  // namespace switchyard
