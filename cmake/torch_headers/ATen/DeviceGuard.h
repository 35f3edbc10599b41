// Stands before the wheel's ATen/DeviceGuard.h, which every header of ATen/ops/ includes without using it: it compiles
// IValue for one function over lists of tensors. A unit that guards a device includes <c10/core/DeviceGuard.h>.
#pragma once

#include <ATen/core/Tensor.h>
