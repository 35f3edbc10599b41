// Adafactor without momentum, as T5 and Switch use it (Shazeer, Stern 2018, algorithms 4 and 5; Switch §2 leaves its
// numbers at the defaults). Conventions are T5X's: both sides of a matrix must reach min_dim_size_to_factor, v_row
// belongs to the smaller side (the first of two equal ones), and the expert axis is a batch axis for factors, RMS and
// clipping.
#pragma once

#include "optim/optimizer.h"

namespace switchyard {

// "v_row" and "v_col", or "v": zeros on the parameter's device.
SlotTensors adafactor_slots(const OptimizerConfig& config, const OptimizedParameter& parameter);

// Sum of squares of each matrix's values, by parameter, as its last update left it; negative: not known.
using ParameterSquares = std::vector<std::vector<double>>;

// The first pass over the gradients of parameters that kernels update: sums of each of their matrices, in order. Those
// gradients are contiguous after it.
std::vector<kernels::GradientSums> adafactor_read(const OptimizerConfig& config,
                                                  const std::vector<OptimizedParameter>& parameters,
                                                  const std::vector<SlotTensors>& slots,
                                                  std::vector<at::Tensor>& gradients);

// One update of all parameters that are Adafactor's, copies included. CPU f32 with gradients in f32 or bf16 runs fused
// kernels, all else plain ATen.
void adafactor_step_(const OptimizerConfig& config, const std::vector<OptimizedParameter>& parameters,
                     const std::vector<SlotTensors>& slots, const GradientReading& reading, ParameterSquares& squares,
                     int64_t step, double gradient_scale);

// Whether Adafactor updates the parameter, and by kernels.
bool has_adafactor_kernel(const OptimizerConfig& config, const OptimizedParameter& parameter,
                          const at::Tensor& gradient);

// Whether they write the parameter's copy too.
bool writes_adafactor_copy(const OptimizerConfig& config, const OptimizedParameter& parameter,
                           const at::Tensor& gradient);

// The update of one parameter in plain ATen, in the tensors' own dtype, on any device: the kernels' oracle and
// fallback.
void adafactor_reference_step_(const OptimizerConfig& config, const OptimizedParameter& parameter,
                               const SlotTensors& slots, const at::Tensor& gradient, int64_t step,
                               double gradient_scale);

}  // namespace switchyard
