// A router of one's own: each token of a group goes to the next expert in turn. What a learned router has to beat.
#pragma once

#include "ops/router.h"

namespace switchyard::examples {

// token_mask [tokens] bool or undefined: false is padding, which takes no slot. Gates are 1 in f32 and losses 0. A
// token's expert depends on its place in the group alone, so that a decoder stays causal. Throws Error as route_to()
// does.
ops::Routing route_round_robin(int64_t tokens, int64_t num_experts, const at::Tensor& token_mask,
                               const ops::RouteOptions& options);

}  // namespace switchyard::examples
