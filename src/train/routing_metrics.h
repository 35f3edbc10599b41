// What a step's sparse layers did, over its micro-batches: the routing part of a line of metrics.jsonl.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/config.h"
#include "model/transformer.h"

namespace switchyard {

class RoutingMetrics {
 public:
  void add(const StackOutput& stack);

  // Adds to `line` one object a statistic, with one entry a layer ("encoder.1"): dropped_fraction, expert_load (a list,
  // one share an expert), expert_load_entropy (nats), expert_load_max (the busiest over the even share),
  // expert_utilization, router_entropy (nats), router_confidence; the losses without coefficients load_balance,
  // router_z and importance, and load where it has one; left_behind_fraction where it differs from dropped_fraction.
  void write(Json& line) const;

  // Mean over micro-batches of the layer's expert_load, [num_experts] f32; undefined for an unknown name.
  at::Tensor expert_load(const std::string& layer) const;

 private:
  struct Layer {
    double dropped = 0.0, left_behind = 0.0, utilization = 0.0, entropy = 0.0, confidence = 0.0, balance = 0.0;
    double z = 0.0, importance = 0.0, load_loss = 0.0;
    at::Tensor load;
    int64_t parts = 0;
  };
  std::vector<std::pair<std::string, Layer>> layers_;
};

// Loss-free balancing after a step: the selection biases of every sparse layer move towards experts with little load.
void update_selection_biases(const ModelConfig& config, ModelWeights& weights, const RoutingMetrics& metrics);

}  // namespace switchyard
