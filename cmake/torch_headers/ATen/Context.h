// Stands before the wheel's ATen/Context.h, which every header of ATen/ops/ includes without using it: with the hooks
// of all devices that one takes a second of every unit's compile time. A unit that calls at::globalContext() defines
// SWITCHYARD_ATEN_CONTEXT before its first include.
#pragma once

#ifdef SWITCHYARD_ATEN_CONTEXT
#include_next <ATen/Context.h>
#else
#include <ATen/DeviceAccelerator.h>  // at::getAccelerator, for torch/csrc/autograd/node.h
#include <ATen/core/Tensor.h>
#endif
