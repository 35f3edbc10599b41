// What a trainer asks about the gradients of a step.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

namespace switchyard {

// Sum of squares over all elements, in f64 in a fixed order: bit-equal for any number of threads. An undefined gradient
// counts as zeros. Not finite exactly if an element is not.
double square_sum(const at::Tensor& gradient);

// Index of the first gradient with an element that is NaN or infinite; none if all are finite.
std::optional<size_t> first_non_finite(const std::vector<at::Tensor>& gradients);

// Factor that brings a gradient of this norm down to clip_norm; 1 if it is below, or if clip_norm is 0 (off).
double clip_scale(double norm, double clip_norm);

}  // namespace switchyard
