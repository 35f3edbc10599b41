// What a step's sparse layers did, over its micro-batches.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "model/transformer.h"

namespace switchyard {

// One sparse layer's figures: means over a step's micro-batches. Losses are without coefficients.
struct LayerRouting {
  std::string name;                                           // "encoder.1"
  double dropped_fraction = 0.0, left_behind_fraction = 0.0;  // of the choices; of the tokens
  at::Tensor expert_load;                                     // [num_experts] f32: shares of the choices
  double expert_utilization = 0.0;
  double router_entropy = 0.0;  // nats
  double router_confidence = 0.0;
  double load_balance_loss = 0.0, router_z_loss = 0.0, importance_loss = 0.0;
  double load_loss = 0.0;  // 0 where the layer has none
};

class RoutingMetrics {
 public:
  void add(const StackOutput& stack);

  std::vector<LayerRouting> layers() const;  // in the order in which they came

 private:
  struct Sums {
    LayerRouting layer;
    int64_t parts = 0;
  };
  std::vector<Sums> sums_;
};

// Loss-free balancing after a step: the selection biases of every sparse layer move towards experts with little load.
void update_selection_biases(const ModelConfig& config, ModelWeights& weights, const std::vector<LayerRouting>& layers);

}  // namespace switchyard
