// switchyard inspect --routing MODEL --text FILE: which tokens each expert takes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/compute_options.h"

namespace switchyard {

struct InspectRouting {
  bool enabled = false;
  std::string model;
  std::vector<std::string> text;
  std::string html;  // page to write; empty: none
  int64_t max_examples = 64, encoder_length = 512, num_typical = 8;
  bool json = false;
  ComputeOptions compute;
};

void inspect_routing(const InspectRouting& command);

}  // namespace switchyard
