// T5X's scanned layers: one array for all layers of a stack, along axis 1, under a doubled name
// ("encoder/encoder/...").
#pragma once

#include <string>

#include "checkpoint/safetensors.h"

namespace switchyard {

// Puts layers in place of scanned arrays: "encoder/encoder/mlp/wi/kernel" [in, layers, out] becomes
// "encoder/layers_0/mlp/wi/kernel" [in, out] and on, as unscanned checkpoints have them; others stay. A position table
// that is the same in all layers becomes the stack's own ("encoder/relpos_bias/rel_embedding"). Views, no copies.
// Throws Error if an array has no axis 1, or the numbers of layers of a stack differ.
void unstack_scanned_layers(NamedTensors& arrays, const std::string& source);

}  // namespace switchyard
