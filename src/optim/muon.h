// Muon (Jordan et al. 2024): the step of a layer's matrix is its momentum made orthogonal, so that every direction that
// the gradient has moves alike. Here it is scaled to a root mean square of 1 (Liu et al. 2025 take 0.2), as Adafactor's
// clipped step is, so that one learning rate serves both; the other parameters take Adafactor's step.
#pragma once

#include "optim/optimizer.h"

namespace switchyard {

SlotTensors muon_slots(const OptimizedParameter& parameter);  // "momentum": zeros of the parameter's shape

// One update of the parameters that are hidden matrices, every expert on its own; the others are left alone.
void muon_step_(const OptimizerConfig& config, const std::vector<OptimizedParameter>& parameters,
                const std::vector<SlotTensors>& slots, const std::vector<at::Tensor>& gradients, int64_t step,
                double gradient_scale, at::ScalarType product_dtype);

// The nearest matrix with orthonormal rows (columns, where there are fewer) to each of `matrices` [..., rows, columns],
// roughly: five steps of a quintic Newton-Schulz iteration leave singular values between 0.7 and 1.2. Zeros stay zeros.
// Products are in product_dtype, bf16 for speed; f64 matrices keep theirs.
at::Tensor orthogonalized(const at::Tensor& matrices, at::ScalarType product_dtype);

}  // namespace switchyard
