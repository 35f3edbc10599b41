// A call as soon as a backward pass has made a parameter's gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace switchyard {

// `call` gets the gradient, summed with what was there before, in every backward pass that reaches `parameter`, on the
// thread that runs it. One call a parameter.
void when_gradient_is_made(const at::Tensor& parameter, std::function<void(const at::Tensor& gradient)> call);

}  // namespace switchyard
