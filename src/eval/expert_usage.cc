#include "eval/expert_usage.h"

#include <algorithm>
#include <cmath>

namespace switchyard {

void ExpertUsage::add(const StackOutput& stack, const at::Tensor& ids) {
  const auto flat = ids.cpu().contiguous();
  const auto* id = flat.const_data_ptr<int64_t>();
  for (const auto& sparse : stack.sparse_layers) {
    auto [found, is_new] = layers_.try_emplace(sparse.name);
    if (is_new) order_.push_back(sparse.name);
    auto& layer = found->second;
    const auto& routing = sparse.routing;
    layer.counts += routing.counts;
    const auto num_rows = routing.dispatch.rows_by_expert();
    layer.taken.resize(num_rows.size());
    layer.gates.resize(num_rows.size());
    const auto gates = routing.gate.detach().to(at::kCPU, at::kDouble).contiguous();
    const auto* token = routing.dispatch.token.const_data_ptr<int64_t>();
    int64_t row = 0;
    for (size_t expert = 0; expert < num_rows.size(); ++expert)
      for (int64_t n = 0; n < num_rows[expert]; ++n, ++row) {
        ++layer.taken[expert][id[token[row]]];
        ++layer.seen[id[token[row]]];
        layer.gates[expert] += gates.const_data_ptr<double>()[row];
      }
  }
}

std::vector<LayerUse> ExpertUsage::summarise(int64_t num_typical) const {
  std::vector<LayerUse> result;
  for (const auto& name : order_) {
    const auto& layer = layers_.at(name);
    const auto statistics = ops::read_statistics(layer.counts);
    LayerUse use{.name = name,
                 .tokens = std::llround(statistics.tokens),
                 .left_behind = std::llround(statistics.left_behind_fraction * statistics.tokens),
                 .router_entropy = statistics.router_entropy,
                 .router_confidence = statistics.router_confidence,
                 .experts = {}};
    double all = 0;
    for (const auto& [id, count] : layer.seen) all += static_cast<double>(count);
    for (size_t expert = 0; expert < layer.taken.size(); ++expert) {
      ExpertUse one;
      for (const auto& [id, count] : layer.taken[expert]) one.tokens += count;
      one.load = static_cast<double>(one.tokens) / std::max(1.0, all);
      one.mean_gate = layer.gates[expert] / static_cast<double>(std::max<int64_t>(1, one.tokens));
      std::vector<std::pair<double, TypicalToken>> ranked;
      for (const auto& [id, count] : layer.taken[expert]) {
        const double share = static_cast<double>(count) / static_cast<double>(layer.seen.at(id));
        if (share > one.load)
          ranked.push_back({static_cast<double>(count) * std::log(share / one.load), {id, count, share}});
      }
      std::sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) {
        return a.first > b.first || (a.first == b.first && a.second.id < b.second.id);
      });
      for (size_t n = 0; n < std::min(ranked.size(), static_cast<size_t>(num_typical)); ++n)
        one.typical.push_back(ranked[n].second);
      use.experts.push_back(std::move(one));
    }
    result.push_back(std::move(use));
  }
  return result;
}

}  // namespace switchyard
