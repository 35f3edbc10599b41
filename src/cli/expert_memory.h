// --expert-memory: how much memory a model's experts may take, and what is told about it.
#pragma once

#include <string>

#include "base/json.h"
#include "checkpoint/experts_on_demand.h"
#include "cli/compute_options.h"

namespace switchyard {

void add_expert_memory(CLI::App& command, ComputeOptions& options);

// {"limit", "hit_rate", "wanted", "read", "bytes_read", "peak_bytes"}
Json expert_memory_json(const ExpertReads& reads, int64_t limit);

// One line for a person.
std::string expert_memory_line(const ExpertReads& reads, int64_t limit);

}  // namespace switchyard
