// at::cat is the one operation whose header needs what the light ATen/DeviceGuard.h leaves out.
#pragma once

#include <ATen/core/IListRef.h>
#include_next <ATen/ops/cat.h>
