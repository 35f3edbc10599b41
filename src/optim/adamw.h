// AdamW (Loshchilov, Hutter 2019) with bias correction and decoupled decay, as torch.optim.AdamW.
#pragma once

#include "optim/optimizer.h"

namespace switchyard {

SlotTensors adamw_slots(const OptimizedParameter& parameter);  // "m" and "v": zeros of the parameter's shape

// One update of all parameters. CPU f32 runs one fused loop a tensor, all else plain ATen.
void adamw_step_(const OptimizerConfig& config, const std::vector<OptimizedParameter>& parameters,
                 const std::vector<SlotTensors>& slots, const std::vector<at::Tensor>& gradients, int64_t step,
                 double gradient_scale);

}  // namespace switchyard
