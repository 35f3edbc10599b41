#include "train/routing_metrics.h"

#include <ATen/TensorOperators.h>

#include <algorithm>

#include "model/routing.h"

namespace switchyard {
namespace {

void add(const at::Tensor& part, at::Tensor& sum) {
  if (part.defined()) sum = sum.defined() ? sum + part.detach() : part.detach();
}

}  // namespace

void add_layers(const StackOutput& stack, std::vector<LayerRouting>& layers) {
  for (const auto& sparse : stack.sparse_layers) {
    auto layer =
        std::find_if(layers.begin(), layers.end(), [&](const LayerRouting& each) { return each.name == sparse.name; });
    if (layer == layers.end()) {
      layer = layers.insert(layers.end(), LayerRouting{});
      layer->name = sparse.name;
    }
    layer->counts += sparse.routing.counts;
    add(sparse.routing.load_balance_loss, layer->load_balance_loss);
    add(sparse.load_loss, layer->load_loss);
  }
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
            update_selection_bias_(router->selection_bias, layer.counts.expert_choices(), rate);
    }
}

}  // namespace switchyard
