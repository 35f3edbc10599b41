#include "train/routing_metrics.h"

#include <ATen/TensorOperators.h>

#include <algorithm>

#include "model/routing.h"

namespace switchyard {

void RoutingMetrics::add(const StackOutput& stack) {
  for (const auto& sparse : stack.sparse_layers) {
    auto found =
        std::find_if(sums_.begin(), sums_.end(), [&](const Sums& sums) { return sums.layer.name == sparse.name; });
    if (found == sums_.end()) {
      found = sums_.insert(sums_.end(), Sums{});
      found->layer.name = sparse.name;
    }
    auto& layer = found->layer;
    const auto& routing = sparse.routing;
    layer.dropped_fraction += routing.dropped_fraction;
    layer.left_behind_fraction += routing.left_behind_fraction;
    layer.expert_utilization += routing.expert_utilization;
    layer.router_entropy += routing.router_entropy;
    layer.router_confidence += routing.router_confidence;
    layer.load_balance_loss += routing.load_balance_loss.item<double>();
    layer.router_z_loss += routing.router_z_loss.item<double>();
    layer.importance_loss += routing.importance_loss.item<double>();
    if (sparse.load_loss.defined()) layer.load_loss += sparse.load_loss.item<double>();
    layer.expert_load = layer.expert_load.defined() ? layer.expert_load + routing.expert_load : routing.expert_load;
    ++found->parts;
  }
}

std::vector<LayerRouting> RoutingMetrics::layers() const {
  std::vector<LayerRouting> layers;
  for (const auto& sums : sums_) {
    auto& layer = layers.emplace_back(sums.layer);
    const auto parts = static_cast<double>(sums.parts);
    for (double* value : {&layer.dropped_fraction, &layer.left_behind_fraction, &layer.expert_utilization,
                          &layer.router_entropy, &layer.router_confidence, &layer.load_balance_loss,
                          &layer.router_z_loss, &layer.importance_loss, &layer.load_loss})
      *value /= parts;
    layer.expert_load = (layer.expert_load / parts).cpu();
  }
  return layers;
}

void update_selection_biases(const ModelConfig& config, ModelWeights& weights,
                             const std::vector<LayerRouting>& layers) {
  const double rate = config.routing.selection_bias_rate;
  if (rate == 0.0) return;
  for (auto& [stack, name] : {std::pair{&weights.encoder, "encoder."}, std::pair{&weights.decoder, "decoder."}})
    for (size_t block = 0; block < stack->blocks.size(); ++block) {
      auto& blocks = stack->blocks[block];
      const std::string layer_name = name + std::to_string(block);
      for (auto& [router, router_name] : {std::pair{&blocks.feed_forward.router, layer_name},
                                          std::pair{&blocks.self_attention.router, layer_name + ".attention"}})
        for (const auto& layer : layers)
          if (layer.name == router_name && router->selection_bias.defined())
            update_selection_bias_(router->selection_bias, layer.expert_load, rate);
    }
}

}  // namespace switchyard
