// One update of a model: its weights, optimiser and loss, apart from where batches come from and where results go; on
// one rank, or on all of a mesh with the same result.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "data/batch.h"
#include "eval/text_loss.h"
#include "model/parameters.h"
#include "model/routing_groups.h"
#include "optim/optimizer.h"
#include "parallel/rank_exchange.h"
#include "parallel/rank_split.h"
#include "parallel/rank_weights.h"
#include "train/low_rank.h"
#include "train/pass_weights.h"
#include "train/routing_metrics.h"
#include "train/teacher.h"

namespace switchyard {

// Sequences of a forward pass where `num_parts` ranks share a step's batch. Throws Error if ranks or micro-batches
// would split a routing group, telling what would not.
int64_t rows_of_pass(const ModelConfig& model, const BatchShape& step, int64_t num_parts, int64_t micro_batch_size);
// Whether one of these groups holds the parameter: experts, routers, non_experts (all but these two), attention,
// feed_forward (both dense), embeddings (inputs, outputs and position biases), norms. Throws Error naming the nearest
// for a group that there is not.
bool is_frozen(const ParameterSpec& spec, const std::vector<std::string>& groups);

struct StepOptions {
  at::ScalarType dtype = at::kBFloat16;  // of products; weights stay f32
  double z_loss = 1e-4;                  // weight of log(Z)^2 of the output softmax
  uint64_t seed = 0;                     // of dropout and routing noise
  int64_t micro_batch_size = 0;          // sequences a forward pass; 0: the whole batch
  int64_t recompute_blocks = 0;          // of each stack (ForwardOptions)
  std::vector<std::string> frozen = {};  // groups of is_frozen() that get neither gradients nor slots
  const Teacher* teacher = nullptr;      // null: labels alone
  LowRankOptions low_rank = {};          // with a rank, all but the matrices that take updates is frozen; on one rank
};

struct StepResult {
  int64_t step = 0;                          // number of this update, from 1
  int64_t tokens = 0;                        // encoder and decoder positions of its whole batch, padding included
  int64_t real_tokens = 0;                   // without padding
  int64_t examples = 0;                      // of its whole batch: more than rows where they are packed
  double loss = 0.0, cross_entropy = 0.0;    // what was minimised; nats per target token
  std::optional<double> soft_cross_entropy;  // against a teacher's probabilities
  double load_balance_loss = 0.0;            // these without coefficients
  double router_z_loss = 0.0;
  std::optional<double> importance_loss, load_loss;  // of models that have these losses
  double learning_rate = 0.0;
  double gradient_norm = 0.0;        // before clipping
  std::vector<LayerRouting> layers;  // one a sparse layer, in order
  std::vector<PartResult> parts;     // by Batch::part; empty where there are none
  WireBytes wire_bytes;              // that this rank sent
  double optimizer_seconds = 0.0;    // of reading gradients and writing weights
  double seconds = 0.0;              // with the wait for its batch: filled in by whoever drives the steps
};

// Mean over sparse layers of the share of tokens that found no slot, 0 in a dense model.
double mean_dropped_fraction(const StepResult& result);

// A loss or gradient that is not finite; nothing has been changed. Names step and parameter.
class NotFinite : public Error {
 public:
  using Error::Error;
};

class Learner {
 public:
  // This rank's share of the weights, f32 of `values`, which get gradients; the optimiser's slots start at zero. The
  // mesh outlives the learner. All ranks of the mesh call every function, but for those that only look.
  Learner(const ModelConfig& model, const ParameterValues& values, const OptimizerConfig& optimizer,
          const StepOptions& options, const Mesh& mesh, at::Device device);
  // Of these weights, on one rank.
  Learner(const ModelConfig& model, const ModelWeights& weights, const OptimizerConfig& optimizer,
          const StepOptions& options);
  Learner(const Learner&) = delete;
  Learner& operator=(const Learner&) = delete;

  // Update number `step`, from 1, on the whole batch, of which this rank gives its part: equal runs of rows,
  // micro-batch by micro-batch. Throws NotFinite, on all ranks, and Error for parts that split a routing group.
  StepResult update(const Batch& batch, int64_t step);

  const ModelWeights& weights() const { return weights_; }  // this rank's part
  int64_t num_parameters() const;                           // of the whole model

  // For a pass without gradient in which all ranks have the same tokens; lives as long as the learner.
  ComputeWeights shared_weights() const;

  // Null without a rank of StepOptions::low_rank.
  const LowRankUpdates* low_rank() const { return low_rank_ ? &*low_rank_ : nullptr; }
  void load_low_rank(const Adapters& adapters);  // as LowRankUpdates::load

  // What this rank updates, and so writes to checkpoints: runs of experts or whole parameters, and their values.
  const std::vector<UpdateUnit>& own_units() const { return exchange_.own(); }
  const std::vector<at::Tensor>& own_values() const { return own_; }

  // The slots of the own units, sharing storage with the optimiser; load_optimizer_state() copies them back by name. A
  // run of experts is named "<parameter>[begin:end]".
  SlotTensors optimizer_state() const { return optimizer_->state(); }
  void load_optimizer_state(const SlotTensors& slots) { optimizer_->load_state(slots); }

 private:
  StepResult forward_backward(const Batch& batch, int64_t step);  // gradients are left in pass_
  std::vector<OptimizedParameter> open_low_rank();
  StepTotals totals_of(const Batch& batch) const;

  ModelConfig model_;
  const Mesh& mesh_;
  UpdateExchange exchange_;
  ModelWeights weights_;
  std::vector<at::Tensor> own_;          // [own unit]
  std::vector<size_t> optimized_units_;  // own units that are trained, in the optimiser's order
  std::optional<RankExchange> to_experts_;
  std::optional<SharedTokens> shared_tokens_;
  std::optional<RankSplit> split_;
  OptimizerConfig optimizer_config_;
  StepOptions options_;
  std::vector<NamedParameter> parameters_;  // all, in the order of the exchange; they point into weights_
  std::optional<PassWeights> pass_;
  std::optional<LowRankUpdates> low_rank_;
  std::optional<Optimizer> optimizer_;
  bool is_last_pass_ = false;  // of a step: gradients are whole after it
};

}  // namespace switchyard
