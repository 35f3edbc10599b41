// An update of a layer of eight experts, 19 M parameters, and of one large matrix; ATen has AdamW.
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "bench/operation.h"
#include "optim/adafactor.h"
#include "optim/optimizer.h"

namespace switchyard::bench {
namespace {

constexpr int64_t kExperts = 8, kRows = 3072, kColumns = 768;

Operation update(const std::string& name) {
  const auto tensor = at::randn({kExperts, kRows, kColumns}), gradient = at::randn({kExperts, kRows, kColumns});
  OptimizerConfig config;
  config.name = name;
  const OptimizedParameter parameter{.name = "wi", .tensor = tensor, .is_expert = true};
  const auto optimizer = std::make_shared<Optimizer>(config, std::vector{parameter});
  Operation operation;
  operation.kernel = [=, step = int64_t{0}]() mutable {
    optimizer->step_({gradient}, ++step);
    return tensor;
  };
  if (name == "adafactor") {
    operation.plain = [=, slots = adafactor_slots(config, parameter), step = int64_t{0}]() mutable {
      adafactor_reference_step_(config, parameter, slots, gradient, ++step, 1.0);
      return tensor;
    };
  } else {
    operation.aten = [=, m = at::zeros_like(tensor), v = at::zeros_like(tensor), step = at::zeros({})] {
      at::_fused_adamw_({tensor}, {gradient}, {m}, {v}, {}, {step}, 1e-3, 0.9, 0.999, 0.0, 1e-8, false, false);
      return tensor;
    };
  }
  return operation;
}

}  // namespace

void add_optimizers() {
  for (const char* name : {"adafactor", "adamw"})
    add_operation(std::string(name) + " 8 x 3072 x 768", {at::kFloat}, [name](at::ScalarType) { return update(name); });
}

}  // namespace switchyard::bench
