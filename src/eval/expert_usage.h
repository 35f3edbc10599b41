// Which tokens each expert of each sparse layer takes over a text: what people look at to see whether experts
// specialise.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/transformer.h"

namespace switchyard {

struct TypicalToken {
  int64_t id = 0;
  int64_t count = 0;   // times that the expert took it
  double share = 0.0;  // of all of its appearances
};

struct ExpertUse {
  int64_t tokens = 0;  // that the expert took
  double load = 0.0;   // over all that were taken in the layer
  double mean_gate = 0.0;
  std::vector<TypicalToken> typical;  // the most telling first
};

struct LayerUse {
  std::string name;  // "encoder.1"
  int64_t tokens = 0, left_behind = 0;
  double router_entropy = 0.0, router_confidence = 0.0;  // means over real tokens
  std::vector<ExpertUse> experts;
};

class ExpertUsage {
 public:
  // A forward pass of `stack`. ids [batch, length] i64 as they entered it.
  void add(const StackOutput& stack, const at::Tensor& ids);

  // In the order of the model's layers. An expert's typical tokens are the `num_typical` with the largest count * log
  // (P(expert | token) / P(expert)), the token's part of the mutual information of token and expert; never those that
  // it takes less often than others do.
  std::vector<LayerUse> summarise(int64_t num_typical) const;

 private:
  struct Layer {
    ops::RoutingCounts counts;
    std::vector<std::unordered_map<int64_t, int64_t>> taken;  // [num_experts]: id to count
    std::vector<double> gates;                                // [num_experts]: sums
    std::unordered_map<int64_t, int64_t> seen;                // id to count of pairs
  };
  std::vector<std::string> order_;
  std::map<std::string, Layer> layers_;
};

}  // namespace switchyard
