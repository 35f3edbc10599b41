#include "train/step_metrics.h"

#include <algorithm>
#include <cmath>

#include "base/memory.h"

namespace switchyard {
namespace {

void write_layer(Json& line, const LayerRouting& layer) {
  double entropy = 0.0;
  Json shares = Json::array();
  const auto statistics = layer.statistics();
  const auto& load = statistics.expert_load;
  for (const double share : load) {
    if (share > 0) entropy -= share * std::log(share);
    shares.push_back(share);
  }
  line["dropped_fraction"][layer.name] = statistics.dropped_fraction;
  if (statistics.left_behind_fraction != statistics.dropped_fraction)
    line["left_behind_fraction"][layer.name] = statistics.left_behind_fraction;
  line["expert_load_entropy"][layer.name] = entropy;
  line["expert_load_max"][layer.name] = *std::max_element(load.begin(), load.end()) * static_cast<double>(load.size());
  line["expert_load"][layer.name] = shares;
  line["expert_utilization"][layer.name] = statistics.expert_utilization;
  line["layer_load_balance_loss"][layer.name] = layer.load_balance_loss.item<double>();
  line["layer_router_z_loss"][layer.name] = statistics.router_z_loss;
  line["layer_importance_loss"][layer.name] = statistics.importance_loss;
  if (layer.load_loss.defined()) line["layer_load_loss"][layer.name] = layer.load_loss.item<double>();
  line["router_entropy"][layer.name] = statistics.router_entropy;
  line["router_confidence"][layer.name] = statistics.router_confidence;
}

void write_part(Json& line, const StepResult& result, size_t number, const PartProgress& progress) {
  if (number < result.parts.size() && result.parts[number].labels > 0) {
    const auto& part = result.parts[number];
    line["part_loss"][progress.name] = part.loss / static_cast<double>(part.labels);
  }
  line["part_examples_seen"][progress.name] = progress.examples;
  line["part_tokens_seen"][progress.name] = progress.tokens;
}

}  // namespace

Json to_json(const StepResult& result, const RunProgress& progress) {
  Json line{{"step", result.step},
            {"loss", result.loss},
            {"cross_entropy", result.cross_entropy},
            {"load_balance_loss", result.load_balance_loss},
            {"router_z_loss", result.router_z_loss}};
  if (result.soft_cross_entropy) line["soft_cross_entropy"] = *result.soft_cross_entropy;
  if (result.importance_loss) line["importance_loss"] = *result.importance_loss;
  if (result.load_loss) line["load_loss"] = *result.load_loss;
  line["learning_rate"] = result.learning_rate;
  line["gradient_norm"] = result.gradient_norm;
  for (const char* key : {"dropped_fraction", "expert_load_entropy", "expert_load_max", "expert_load",
                          "expert_utilization", "layer_load_balance_loss", "layer_router_z_loss",
                          "layer_importance_loss", "router_entropy", "router_confidence"})
    line[key] = Json::object();
  for (const auto& layer : result.layers) write_layer(line, layer);
  for (size_t n = 0; n < progress.parts.size(); ++n) write_part(line, result, n, progress.parts[n]);
  if (const auto& sent = result.wire_bytes; sent.all_to_all + sent.all_reduce + sent.broadcast > 0)
    line["wire_bytes"] = {
        {"all_to_all", sent.all_to_all}, {"all_reduce", sent.all_reduce}, {"broadcast", sent.broadcast}};
  line["filled"] = static_cast<double>(result.real_tokens) / static_cast<double>(result.tokens);
  line["tokens_seen"] = progress.tokens_seen;
  if (progress.epochs > 0) line["epochs"] = progress.epochs;
  line["model_flops_utilization"] = progress.flops / result.seconds / progress.product_rate;
  line["tokens_per_second"] = static_cast<double>(result.tokens) / result.seconds;
  line["step_seconds"] = result.seconds;
  if (const int64_t peak = peak_memory_bytes(); peak > 0) line["peak_memory_bytes"] = peak;
  return line;
}

Json to_json(int64_t step, const std::vector<NamedNumber>& evaluation, double seconds) {
  Json line{{"step", step}};
  for (const auto& number : evaluation) line[number.name] = number.value;
  line["eval_seconds"] = seconds;
  return line;
}

}  // namespace switchyard
