// Results as lines of metrics.jsonl (docs: "train writes under DIR"): the one place that turns them into JSON.
#pragma once

#include "base/config.h"
#include "base/named_number.h"
#include "train/step.h"

namespace switchyard {

// What a part of a mixture has given since the run's first step.
struct PartProgress {
  std::string name;
  int64_t examples = 0, tokens = 0;  // tokens without padding
};

// How far a run is, and what its speed is measured by.
struct RunProgress {
  int64_t tokens_seen = 0;    // encoder and decoder positions, padding included
  double epochs = 0.0;        // 0 where examples have no end
  double flops = 0.0;         // of a step
  double product_rate = 0.0;  // FLOP/s that the machine's products reach
  std::vector<PartProgress> parts = {};
};

// Scalars under their names, model_flops_utilization among them: the step's FLOPs in its time over the product rate;
// for every statistic of the routing one object with an entry a layer ("encoder.1"): dropped_fraction, expert_load (a
// list, one share an expert), expert_load_entropy (nats), expert_load_max (the busiest over the even share),
// expert_utilization, router_entropy (nats), router_confidence; the losses without coefficients load_balance, router_z
// and importance, and load where it has one; left_behind_fraction where it differs from dropped_fraction.
// filled: the share of positions that is not padding. peak_memory_bytes: the most that the process has had so far.
// Of a mixture, by part: part_loss (nats a target token in this step), part_examples_seen and part_tokens_seen.
Json to_json(const StepResult& result, const RunProgress& progress);

// An evaluation: its numbers under their names.
Json to_json(int64_t step, const std::vector<NamedNumber>& evaluation, double seconds);

}  // namespace switchyard
