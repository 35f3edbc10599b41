// One update of a model: its weights, optimiser and loss, apart from where batches come from and where results go.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "data/batch.h"
#include "model/parameters.h"
#include "optim/optimizer.h"
#include "train/routing_metrics.h"
#include "train/teacher.h"

namespace switchyard {

// What the optimiser gets: every parameter but buffers under its name, routers with their own share of the rate.
std::vector<OptimizedParameter> optimized_parameters(const std::vector<NamedParameter>& parameters,
                                                     const OptimizerConfig& config);

struct StepOptions {
  at::ScalarType dtype = at::kBFloat16;  // of products; weights stay f32
  double z_loss = 1e-4;                  // weight of log(Z)^2 of the output softmax
  uint64_t seed = 0;                     // of dropout and routing noise
  int64_t micro_batch_size = 0;          // sequences a forward pass; 0: the whole batch
  const Teacher* teacher = nullptr;      // null: labels alone
};

// What a part of a mixture did in a step; sums, which add up over micro-batches and ranks.
struct PartResult {
  int64_t examples = 0;
  int64_t tokens = 0;  // inputs and targets, without padding
  int64_t labels = 0;
  double loss = 0.0;  // nats, over its labels
};

struct StepResult {
  int64_t step = 0;                          // number of this update, from 1
  int64_t tokens = 0;                        // encoder and decoder positions of its batch, padding included
  double loss = 0.0, cross_entropy = 0.0;    // what was minimised; nats per target token
  std::optional<double> soft_cross_entropy;  // against a teacher's probabilities
  double load_balance_loss = 0.0;            // these without coefficients
  double router_z_loss = 0.0;
  std::optional<double> importance_loss, load_loss;  // of models that have these losses
  double learning_rate = 0.0;
  double gradient_norm = 0.0;        // before clipping
  std::vector<LayerRouting> layers;  // one a sparse layer, in order
  std::vector<PartResult> parts;     // by Batch::part; empty where there are none
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
  // Weights are f32 and get gradients; the optimiser's slots start at zero.
  Learner(const ModelConfig& model, ModelWeights weights, const OptimizerConfig& optimizer, const StepOptions& options);
  Learner(const Learner&) = delete;
  Learner& operator=(const Learner&) = delete;

  // Update number `step`, from 1, on the whole batch, micro-batch by micro-batch. Throws NotFinite.
  StepResult update(const Batch& batch, int64_t step);

  const ModelWeights& weights() const { return weights_; }
  int64_t num_parameters() const;

  // The optimiser's slots, sharing storage with it; load_optimizer_state() copies them back by name.
  SlotTensors optimizer_state() const { return optimizer_->state(); }
  void load_optimizer_state(const SlotTensors& slots) { optimizer_->load_state(slots); }

 private:
  StepResult forward_backward(const Batch& batch, int64_t step);  // gradients add up in the parameters
  std::vector<at::Tensor> take_gradients();

  ModelConfig model_;
  ModelWeights weights_;
  OptimizerConfig optimizer_config_;
  StepOptions options_;
  std::vector<NamedParameter> parameters_;  // what the optimiser updates; they point into weights_
  std::optional<Optimizer> optimizer_;
};

}  // namespace switchyard
