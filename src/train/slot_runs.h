// Optimiser slots of some runs of experts out of those that a checkpoint has: it may have been written under another
// layout, which cuts the experts of a parameter at other places.
#pragma once

#include "optim/optimizer.h"

namespace switchyard {

// A slot is named "<parameter>.<slot>", or for experts begin to end - 1 alone "<parameter>[begin:end].<slot>", with the
// experts along its first axis. Returns the wanted slots, by name and shape, as far as `stored` has all of their
// experts; tensors of `wanted` are not read.
SlotTensors assemble_slots(const SlotTensors& wanted, const SlotTensors& stored);

}  // namespace switchyard
