// Plans as JSON, the form of `switchyard plan --json`.
#pragma once

#include "base/json.h"
#include "plan/planner.h"
#include "plan/scaling.h"

namespace switchyard {

// data, expert, tensor, fits, reason (if it does not fit), micro_batch, memory_bytes and wire_bytes of one device,
// collectives, step_seconds, seconds by part, bound.
Json to_json(const PlannedLayout& plan, const Cluster& cluster);
Json to_json(const Cluster& cluster);
// Two lists of points, weak and strong.
Json to_json(const ScalingStudy& study);

}  // namespace switchyard
