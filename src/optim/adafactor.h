// Adafactor without momentum, as T5 and Switch use it (Shazeer, Stern 2018, algorithms 4 and 5; Switch §2 leaves its
// numbers at the defaults). Conventions are T5X's: both sides of a matrix must reach min_dim_size_to_factor, v_row
// belongs to the smaller side (the first of two equal ones), and the expert axis is a batch axis for factors, RMS and
// clipping.
#pragma once

#include "optim/optimizer.h"

namespace switchyard {

// "v_row" and "v_col", or "v": zeros on the parameter's device.
SlotTensors adafactor_slots(const OptimizerConfig& config, const OptimizedParameter& parameter);

// One update of all parameters; gradients defined, contiguous or not. CPU f32 runs fused kernels, all else plain ATen.
void adafactor_step_(const OptimizerConfig& config, const std::vector<OptimizedParameter>& parameters,
                     const std::vector<SlotTensors>& slots, const std::vector<at::Tensor>& gradients, int64_t step,
                     double gradient_scale);

// The update of one parameter in plain ATen, in the tensors' own dtype, on any device: the kernels' oracle and
// fallback.
void adafactor_reference_step_(const OptimizerConfig& config, const OptimizedParameter& parameter,
                               const SlotTensors& slots, const at::Tensor& gradient, int64_t step,
                               double gradient_scale);

}  // namespace switchyard
