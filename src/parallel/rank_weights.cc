#include "parallel/rank_weights.h"

namespace switchyard {

at::Tensor part_of_width(const ParameterSpec& spec, const Shard& shard, const at::Tensor& values) {
  if (spec.tensor_axis < 0) return values;
  const auto& slice = shard.axes[static_cast<size_t>(spec.tensor_axis)];
  if (slice.size() == values.size(spec.tensor_axis)) return values;
  return values.narrow(spec.tensor_axis, slice.begin, slice.size()).clone(at::MemoryFormat::Contiguous);
}

RankWeights cut_weights(const ModelConfig& config, const UpdateExchange& exchange, const Mesh& mesh,
                        const ParameterValues& values, at::Device device) {
  RankWeights result;
  const auto& shards = exchange.plan().shards.ranks[static_cast<size_t>(mesh.rank())];
  const auto parameters = list_parameters(config, result.weights);
  size_t unit = 0;  // own units come in the order of parameters
  for (size_t parameter = 0; parameter < parameters.size(); ++parameter) {
    const auto& [spec, tensor] = parameters[parameter];
    const auto& axes = shards[parameter].axes;
    const auto experts = spec.is_expert() ? axes[0] : Slice{0, 1};
    const auto whole = values(parameter, experts);
    *tensor = part_of_width(spec, shards[parameter], whole).to(device);
    for (; unit < exchange.own().size() && exchange.own()[unit].parameter == parameter; ++unit) {
      const auto& own = exchange.own()[unit];
      if (exchange.is_whole(own)) {
        result.own.push_back(exchange.part_of_weight(own, *tensor));
      } else {
        result.own.push_back(
            (spec.is_expert() ? whole.narrow(0, own.experts.begin - experts.begin, own.experts.size()) : whole)
                .clone()
                .to(device));
      }
    }
  }
  return result;
}

}  // namespace switchyard
