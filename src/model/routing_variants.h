// Every form of the sparse layer, as keys of a run file's [model]: what `bench variants` trains.
#pragma once

#include <string>
#include <vector>

#include "model/config.h"

namespace switchyard {

struct RoutingVariant {
  std::string name;
  std::vector<std::string> settings;  // "key = value" of [model]
};
std::vector<RoutingVariant> routing_variants();

// `base` with the variant's settings. Throws Error for a key or value that [model] would refuse.
ModelConfig with_variant(const ModelConfig& base, const RoutingVariant& variant);

}  // namespace switchyard
