// Experts that are read from files when a routing sends them rows: a model of a trillion parameters opens at once, and
// takes memory for the experts that it uses, or for as many of them as it is given memory for.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/stored_tensor.h"
#include "ops/experts.h"

namespace switchyard {

// What was done since the model was opened.
struct ExpertReads {
  int64_t wanted = 0;      // experts that got rows, summed over layers and passes
  int64_t read = 0;        // of these, how many were not in memory
  int64_t bytes_read = 0;  // from files
  int64_t bytes = 0;       // of the experts that are in memory
  int64_t peak_bytes = 0;  // the most so far

  double hit_rate() const { return wanted == 0 ? 1.0 : 1.0 - static_cast<double>(read) / static_cast<double>(wanted); }
};

// The experts of a model's sparse layers. Any thread may call any function.
class ExpertsOnDemand {
 public:
  // most_bytes: of all layers' experts that are in memory at one time; those go first that were used the longest time
  // ago. None: every expert stays that was read.
  explicit ExpertsOnDemand(std::optional<int64_t> most_bytes = std::nullopt) : most_bytes_(most_bytes) {}

  // A further layer without matrices yet. Returns its number.
  size_t add_layer(const std::string& name, int64_t num_experts);

  // A new tensor [num_experts, ...] of `dtype` whose expert E will be `experts[E]`. It takes address space, not memory,
  // and has no values until then. Throws Error if the system refuses, and if one expert is larger than most_bytes.
  at::Tensor add(size_t layer, const std::vector<const StoredTensor*>& experts, at::ScalarType dtype);

  // As ops::ExpertRuns: the layer's experts in as many runs as there must be for the experts with rows of each to be in
  // memory at one time, those that are missing read in parallel before work begins. Where memory is bounded one layer
  // is at work at a time. Throws Error if a file was changed since it was opened.
  void for_each_run(size_t layer, const std::vector<int64_t>& num_rows, const std::function<void(Slice run)>& work);

  ExpertReads reads() const;

 private:
  struct Place {
    size_t layer = 0, expert = 0;
  };
  struct Matrices {
    at::Tensor stacked;
    std::vector<StoredTensor> experts;
  };
  struct Expert {
    std::optional<std::list<Place>::iterator> held;  // in by_use_, where it is in memory
    bool was_read = false;
  };
  struct Layer {
    std::string name;
    std::vector<Expert> experts;
    std::vector<Matrices> matrices;
    int64_t expert_bytes = 0;  // in memory, of one
  };
  void bring(size_t layer, const std::vector<int64_t>& num_rows, Slice run);
  void read_from_files(Layer& layer, const std::vector<size_t>& missing);
  void make_room(int64_t bytes);

  const std::optional<int64_t> most_bytes_;
  std::vector<Layer> layers_;
  std::list<Place> by_use_;  // the longest ago first
  ExpertReads reads_;
  mutable std::mutex mutex_;
};

}  // namespace switchyard
