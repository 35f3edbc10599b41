#include "round_robin.h"

#include <ATen/ops/empty.h>

#include "ops/backend.h"

namespace switchyard::examples {

ops::Routing route_round_robin(int64_t tokens, int64_t num_experts, const at::Tensor& token_mask,
                               const ops::RouteOptions& options) {
  auto expert = at::empty({tokens}, at::kLong);
  for (int64_t token = 0; token < tokens; ++token)
    ops::write<int64_t>(expert)[token] = token % options.group_size % num_experts;
  return ops::route_to(expert, num_experts, token_mask, options, at::kFloat);
}

}  // namespace switchyard::examples
