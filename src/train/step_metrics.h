// A step's result as a line of metrics.jsonl (docs: "train writes under DIR"): the one place that turns it into JSON.
#pragma once

#include "base/config.h"
#include "train/step.h"

namespace switchyard {

// Scalars under their names; for every statistic of the routing one object with an entry a layer ("encoder.1"):
// dropped_fraction, expert_load (a list, one share an expert), expert_load_entropy (nats), expert_load_max (the busiest
// over the even share), expert_utilization, router_entropy (nats), router_confidence; the losses without coefficients
// load_balance, router_z and importance, and load where it has one; left_behind_fraction where it differs from
// dropped_fraction.
Json to_json(const StepResult& result);

}  // namespace switchyard
