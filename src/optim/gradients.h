// What a trainer asks about all gradients of a step at once.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

namespace switchyard {

// Euclidean norm over all elements, summed in f64 in a fixed order: bit-equal for any number of threads. Undefined
// gradients count as zeros. Not finite exactly if an element is not.
double gradient_norm(const std::vector<at::Tensor>& gradients);

// Sum of squares of one gradient, f32 or bf16, as gradient_norm sums them.
double square_sum(const at::Tensor& gradient);

// Index of the first gradient with an element that is NaN or infinite; none if all are finite.
std::optional<size_t> first_non_finite(const std::vector<at::Tensor>& gradients);

// Factor that brings a gradient of this norm down to clip_norm; 1 if it is below, or if clip_norm is 0 (off).
double clip_scale(double norm, double clip_norm);

}  // namespace switchyard
