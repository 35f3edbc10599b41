// What a training step of a run file, a run's folder or a preset computes, for plans and memory reports.
#pragma once

#include <string>
#include <vector>

#include "parallel/shard_plan.h"
#include "plan/workload.h"

namespace switchyard {

struct RunWorkload {
  Workload workload;
  bool is_run = false;  // not a preset, whose batch is the default
  Layout layout;        // of a run: its [parallel]
};

// `settings` are those of --set. Throws Error if `subject` is none of the three, or if there are settings and it is a
// preset.
RunWorkload read_workload(const std::string& subject, const std::vector<std::string>& settings);

}  // namespace switchyard
