#include "train/routing_metrics.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "model/routing.h"

namespace switchyard {

void RoutingMetrics::add(const StackOutput& stack) {
  for (const auto& sparse : stack.sparse_layers) {
    auto found =
        std::find_if(layers_.begin(), layers_.end(), [&](const auto& entry) { return entry.first == sparse.name; });
    if (found == layers_.end()) found = layers_.insert(layers_.end(), {sparse.name, {}});
    auto& layer = found->second;
    const auto& routing = sparse.routing;
    layer.dropped += routing.dropped_fraction;
    layer.left_behind += routing.left_behind_fraction;
    layer.utilization += routing.expert_utilization;
    layer.entropy += routing.router_entropy;
    layer.confidence += routing.router_confidence;
    layer.balance += routing.load_balance_loss.item<double>();
    layer.z += routing.router_z_loss.item<double>();
    layer.importance += routing.importance_loss.item<double>();
    if (sparse.load_loss.defined()) layer.load_loss += sparse.load_loss.item<double>();
    layer.load = layer.load.defined() ? layer.load + routing.expert_load : routing.expert_load;
    ++layer.parts;
  }
}

void RoutingMetrics::write(Json& line) const {
  for (const char* key :
       {"dropped_fraction", "expert_load_entropy", "expert_load_max", "expert_load", "expert_utilization",
        "load_balance", "router_z", "importance", "router_entropy", "router_confidence"})
    line[key] = Json::object();
  for (const auto& [name, layer] : layers_) {
    const auto parts = static_cast<double>(layer.parts);
    const auto load = expert_load(name);
    double entropy = 0.0;
    Json shares = Json::array();
    const float* values = load.const_data_ptr<float>();
    for (int64_t expert = 0; expert < load.numel(); ++expert) {
      const double share = values[expert];
      if (share > 0) entropy -= share * std::log(share);
      shares.push_back(share);
    }
    line["dropped_fraction"][name] = layer.dropped / parts;
    if (layer.left_behind != layer.dropped) line["left_behind_fraction"][name] = layer.left_behind / parts;
    line["expert_load_entropy"][name] = entropy;
    line["expert_load_max"][name] = load.max().item<double>() * static_cast<double>(load.numel());
    line["expert_load"][name] = shares;
    line["expert_utilization"][name] = layer.utilization / parts;
    line["load_balance"][name] = layer.balance / parts;
    line["router_z"][name] = layer.z / parts;
    line["importance"][name] = layer.importance / parts;
    if (layer.load_loss > 0.0) line["load"][name] = layer.load_loss / parts;
    line["router_entropy"][name] = layer.entropy / parts;
    line["router_confidence"][name] = layer.confidence / parts;
  }
}

at::Tensor RoutingMetrics::expert_load(const std::string& name) const {
  for (const auto& [layer_name, layer] : layers_)
    if (layer_name == name) return (layer.load / static_cast<double>(layer.parts)).cpu();
  return {};
}

void update_selection_biases(const ModelConfig& config, ModelWeights& weights, const RoutingMetrics& metrics) {
  const double rate = config.routing.selection_bias_rate;
  if (rate == 0.0) return;
  for (auto& [stack, name] : {std::pair{&weights.encoder, "encoder."}, std::pair{&weights.decoder, "decoder."}})
    for (size_t block = 0; block < stack->blocks.size(); ++block) {
      auto& layers = stack->blocks[block];
      const std::string layer = name + std::to_string(block);
      for (auto& [router, layer_name] : {std::pair{&layers.feed_forward.router, layer},
                                         std::pair{&layers.self_attention.router, layer + ".attention"}})
        if (const auto load = metrics.expert_load(layer_name); load.defined() && router->selection_bias.defined())
          update_selection_bias_(router->selection_bias, load, rate);
    }
}

}  // namespace switchyard
