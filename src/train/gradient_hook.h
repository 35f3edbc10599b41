// A call as soon as a backward pass has made a parameter's gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace switchyard {

// `call` runs in every backward pass that reaches `parameter`, once its gradient is summed with what was there before,
// on the thread that runs the pass. One call a parameter.
void when_gradient_is_made(const at::Tensor& parameter, std::function<void()> call);

}  // namespace switchyard
