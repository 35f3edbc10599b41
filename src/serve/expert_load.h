// How a served model's tokens are shared out among its experts, since the server began.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "model/transformer.h"

namespace switchyard {

// Thread-safe.
class ExpertLoad {
 public:
  void add(const std::vector<SparseLayer>& layers);  // of one pass

  struct Layer {
    std::string name;                                   // "encoder.1"
    double tokens = 0.0, dropped = 0.0, entropy = 0.0;  // sums: tokens without an expert; of the router, nats
    std::vector<double> choices = {};                   // [num_experts]: of tokens, before dropping
  };
  std::vector<Layer> layers() const;  // in the order of the model's passes
  std::string text() const;           // for Prometheus

 private:
  struct Counted {
    std::string name;
    ops::RoutingCounts counts;
  };
  mutable std::mutex mutex_;
  std::vector<Counted> layers_;
};

}  // namespace switchyard
