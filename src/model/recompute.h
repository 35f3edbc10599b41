// A part of a forward pass that keeps its inputs alone and is computed again when its gradient is wanted (Chen et al.
// 2016): memory for time.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <functional>
#include <vector>

namespace switchyard {

using PartOfPass = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)>;

// What `run` makes of `inputs`, of which the first needs a gradient. It runs now and once more in the backward pass,
// with the same result: noise is a function of keys, and whatever else it reads has to stay as it is until then.
// Gradients go to the inputs and to the leaves that it reads. Inputs and outputs may be undefined.
std::vector<at::Tensor> recomputed(const PartOfPass& run, const std::array<at::Tensor, 3>& inputs);

}  // namespace switchyard
