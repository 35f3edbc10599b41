#include "serve/expert_load.h"

#include <algorithm>

#include "serve/statistics.h"

namespace switchyard {

void ExpertLoad::add(const std::vector<SparseLayer>& layers) {
  const std::lock_guard lock(mutex_);
  for (const auto& layer : layers) {
    auto found = std::find_if(layers_.begin(), layers_.end(),
                              [&](const Counted& counted) { return counted.name == layer.name; });
    if (found == layers_.end()) found = layers_.insert(layers_.end(), {layer.name, {}});
    found->counts += layer.routing.counts;
  }
}

std::vector<ExpertLoad::Layer> ExpertLoad::layers() const {
  std::vector<Counted> counted;
  {
    const std::lock_guard lock(mutex_);
    counted = layers_;
  }
  std::vector<Layer> result;
  for (const auto& [name, counts] : counted) {
    const auto sums = counts.sums.cpu();
    const auto* sum = sums.const_data_ptr<double>();
    const auto* choices = sum + ops::RoutingCounts::kNumSums;
    result.push_back({.name = name,
                      .tokens = sum[ops::RoutingCounts::kTokens],
                      .dropped = sum[ops::RoutingCounts::kLeftBehind],
                      .entropy = sum[ops::RoutingCounts::kEntropy],
                      .choices = {choices, choices + counts.num_experts()}});
  }
  return result;
}

std::string ExpertLoad::text() const {
  const auto all = layers();
  if (all.empty()) return "";
  MetricsText text;
  const auto of_layers = [&](const char* name, const char* help, double Layer::*value) {
    text.describe(name, "counter", help);
    for (const auto& layer : all) text.add(name, {{"layer", layer.name}}, layer.*value);
  };
  of_layers("switchyard_routed_tokens_total", "Tokens that passed a sparse layer.", &Layer::tokens);
  of_layers("switchyard_dropped_tokens_total", "Tokens of them that no expert took.", &Layer::dropped);
  of_layers("switchyard_router_entropy_nats_total", "Sum of the router's entropy over tokens.", &Layer::entropy);
  constexpr const char* kChoices = "switchyard_expert_tokens_total";
  text.describe(kChoices, "counter", "Tokens that chose an expert.");
  for (const auto& layer : all)
    for (size_t expert = 0; expert < layer.choices.size(); ++expert)
      text.add(kChoices, {{"layer", layer.name}, {"expert", std::to_string(expert)}}, layer.choices[expert]);
  return text.text();
}

}  // namespace switchyard
