// What a step's sparse layers did, added up over its micro-batches.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "model/transformer.h"

namespace switchyard {

// One sparse layer. Losses are without coefficients; tensors stay on the model's device until they are read.
struct LayerRouting {
  std::string name;  // "encoder.1"
  ops::RoutingCounts counts;
  at::Tensor load_balance_loss;  // []
  at::Tensor load_loss;          // [], undefined where the layer has none
  ops::RoutingStatistics statistics() const { return ops::read_statistics(counts); }
};

// Adds a micro-batch's layers to those of the step so far.
void add_layers(const StackOutput& stack, std::vector<LayerRouting>& layers);

// Loss-free balancing after a step: the selection biases of every sparse layer move towards experts with little load.
void update_selection_biases(const ModelConfig& config, ModelWeights& weights, const std::vector<LayerRouting>& layers);

}  // namespace switchyard
