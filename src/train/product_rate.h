// What this machine's matrix products reach: the measure of model_flops_utilization.
#pragma once

#include <ATen/core/Tensor.h>

namespace switchyard {

// FLOP/s of one large product of this type with the threads in use, by a short measurement (a twentieth of a second) at
// the first call for the type.
double product_rate(at::ScalarType dtype);

}  // namespace switchyard
