// The optimisers of a run: Adafactor as T5 uses it, AdamW and Muon. All take the gradients of one step and change
// parameters in place; what they remember is a list of named tensors, so that checkpoints need not know which one it
// is.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "optim/adafactor_kernel.h"

namespace switchyard {

struct OptimizerConfig {
  std::string name = "adafactor";
  double learning_rate = 0.01;  // the schedule's peak
  std::string schedule = "inverse_sqrt";
  int64_t warmup_steps = 10000;     // of inverse_sqrt: the rate is flat up to here
  int64_t linear_warmup_steps = 0;  // any schedule: times min(1, step / linear_warmup_steps)
  int64_t decay_steps = 0;          // of linear, cosine and trapezoid; the trainer puts train.steps in place of 0
  double final_fraction = 0.0;      // of these: rate at decay_steps over learning_rate
  double cooldown_fraction = 0.2;   // of trapezoid: share of decay_steps over which the rate falls
  double gradient_clip_norm = 0.0;
  double weight_decay = 0.0;
  double router_learning_rate_scale = 1.0;
  double expert_learning_rate_scale = 1.0;
  double decay_rate = 0.8;  // Adafactor: beta2_t = 1 - t^-decay_rate, t from 1
  double clipping_threshold = 1.0;
  bool scale_by_parameter = true;
  int64_t min_dim_size_to_factor = 128;
  double epsilon1 = 1e-30;
  double epsilon2 = 1e-3;
  double beta1 = 0.9;  // AdamW
  double beta2 = 0.999;
  double epsilon = 1e-8;
  bool adamw_scale_by_parameter = false;
  double momentum = 0.95;  // Muon
  double muon_learning_rate_scale = 1.0;
  bool muon_experts = true;

  template <class Self, class Field>
  static void visit(Self& self, Field&& field) {
    field("name", self.name, "adafactor, adamw or muon");
    field("learning_rate", self.learning_rate, "the schedule's highest rate");
    field("schedule", self.schedule, "inverse_sqrt, constant, linear, cosine or trapezoid");
    field("warmup_steps", self.warmup_steps, "inverse_sqrt: rate * sqrt(warmup_steps / max(step, warmup_steps))");
    field("linear_warmup_steps", self.linear_warmup_steps, "any schedule: rate grows linearly over these steps");
    field("decay_steps", self.decay_steps,
          "linear, cosine, trapezoid: step at which final_fraction is reached; 0: train.steps");
    field("final_fraction", self.final_fraction, "of these: share of the rate that is left at decay_steps");
    field("cooldown_fraction", self.cooldown_fraction, "trapezoid: share of decay_steps over which the rate falls");
    field("gradient_clip_norm", self.gradient_clip_norm, "gradients are scaled down to this global norm; 0: off");
    field("weight_decay", self.weight_decay,
          "decoupled: weights *= 1 - rate * weight_decay each step, but norms and biases");
    field("router_learning_rate_scale", self.router_learning_rate_scale, "multiplies the rate of router weights");
    field("expert_learning_rate_scale", self.expert_learning_rate_scale, "multiplies the rate of experts' weights");
    field("decay_rate", self.decay_rate, "adafactor: second moments decay by 1 - step^-decay_rate");
    field("clipping_threshold", self.clipping_threshold, "adafactor: largest RMS of an update before the rate; 0: off");
    field("scale_by_parameter", self.scale_by_parameter, "adafactor: updates *= max(epsilon2, RMS(weights))");
    field("min_dim_size_to_factor", self.min_dim_size_to_factor,
          "adafactor: matrices with both sides >= this are factored");
    field("epsilon1", self.epsilon1, "adafactor: added to squared gradients");
    field("epsilon2", self.epsilon2, "adafactor: least RMS of weights that scales updates");
    field("beta1", self.beta1, "adamw: decay of the first moment");
    field("beta2", self.beta2, "adamw: decay of the second moment");
    field("epsilon", self.epsilon, "adamw: added to the root of the second moment");
    field("adamw_scale_by_parameter", self.adamw_scale_by_parameter,
          "adamw: updates *= max(epsilon2, RMS(weights)), as adafactor's");
    field("momentum", self.momentum, "muon: decay of the momentum");
    field("muon_learning_rate_scale", self.muon_learning_rate_scale, "muon: multiplies the rate of hidden matrices");
    field("muon_experts", self.muon_experts, "muon: also for experts' matrices; false: these take adafactor's step");
  }
};

// Throws Error naming the key if a name is unknown or a number out of range.
void validate(const OptimizerConfig& config);

// The rate of `step`, counted from 1. T5's 1 / sqrt(max(step, 10000)) is inverse_sqrt with learning_rate 0.01 and
// warmup_steps 10000. Throws Error if linear or cosine has no decay_steps.
double learning_rate(const OptimizerConfig& config, int64_t step);

struct OptimizedParameter {
  std::string name;
  at::Tensor tensor;        // f32; changed in place
  bool is_expert = false;   // [num_experts, ...]: every expert is a tensor of its own for factors, RMS and clipping
  double rate_scale = 1.0;  // multiplies the learning rate
  bool decays = true;       // weight_decay applies
  bool is_hidden_matrix = false;  // a layer's matrix, or one an expert: what Muon orthogonalises
  at::Tensor copy = {};           // of its shape, in another dtype or place: gets the new values too; undefined: none
};

// Gradients of a step after a first pass over them.
struct GradientReading {
  std::vector<at::Tensor> gradients;            // one a parameter, defined
  std::vector<double> square_sums;              // of each, before any scale; not finite exactly if an element is not
  std::vector<kernels::GradientSums> matrices;  // of those that Adafactor's kernels update
};

using SlotTensors = std::vector<std::pair<std::string, at::Tensor>>;

class Optimizer {
 public:
  // Slots start at zero, on the parameters' devices. product_dtype: of Muon's products. Throws Error as validate()
  // does.
  Optimizer(const OptimizerConfig& config, std::vector<OptimizedParameter> parameters,
            at::ScalarType product_dtype = at::kBFloat16);

  // gradients: one a parameter in the constructor's order, of its shape, f32 or bf16; an undefined one counts as zeros.
  // Throws Error if their number, a shape or a device differs.
  GradientReading read(const std::vector<at::Tensor>& gradients) const;

  // Update number `step`, from 1. Gradients are multiplied by gradient_scale (clipping; 1 / loss scale). Bit-equal for
  // any number of threads, but for Muon's products, which are libtorch's.
  void step_(const GradientReading& reading, int64_t step, double gradient_scale = 1.0);
  void step_(const std::vector<at::Tensor>& gradients, int64_t step, double gradient_scale = 1.0) {
    step_(read(gradients), step, gradient_scale);
  }

  // Slots named "<parameter>.<slot>", sharing storage with the optimiser: v_row, v_col or v (Adafactor), m and v
  // (AdamW), momentum (Muon). v_row has the size of the smaller side of a matrix, v_col of the larger (T5X); expert
  // slots lead with [num_experts].
  SlotTensors state() const;

  // Copies the slots of that name; others in `tensors` are ignored. Throws Error, before anything is changed, if one is
  // missing or has another shape.
  void load_state(const SlotTensors& tensors);

 private:
  OptimizerConfig config_;
  std::vector<OptimizedParameter> parameters_;
  at::ScalarType product_dtype_;
  std::vector<SlotTensors> slots_;                      // [parameter]
  std::vector<std::vector<double>> parameter_squares_;  // [parameter][matrix], after the last update; negative: unknown
  std::vector<int64_t> versions_;  // [parameter]: autograd's count of changes after it, by which others' are noticed
};

}  // namespace switchyard
