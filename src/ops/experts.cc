#include "ops/experts.h"

#include <numeric>

#include "base/error.h"
#include "ops/reference.h"

namespace switchyard::ops {

at::Tensor experts_feed_forward(const at::Tensor& x, const at::Tensor& gate, const Dispatch& dispatch, const at::Tensor& wi,
                                const at::Tensor& wi_1, const at::Tensor& wo, const ExpertsOptions& options) {
  SY_CHECK(x.dim() == 2 && wi.dim() == 3 && wo.dim() == 3 && wi.size(2) == x.size(1) && wo.size(0) == wi.size(0) &&
               wo.size(1) == x.size(1) && wo.size(2) == wi.size(1) && (!wi_1.defined() || wi_1.sizes() == wi.sizes()),
           "experts_feed_forward: expected x [tokens, d_model], wi [num_experts, d_ff, d_model], wo [num_experts, d_model, d_ff], "
           "got ", x.sizes(), ", ", wi.sizes(), ", ", wo.sizes());
  SY_CHECK(wi.scalar_type() == x.scalar_type() && wo.scalar_type() == x.scalar_type() &&
               (!wi_1.defined() || wi_1.scalar_type() == x.scalar_type()) &&
               gate.scalar_type() == (x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat),
           "experts_feed_forward: x is ", x.toString(), ", wi ", wi.toString(), ", wo ", wo.toString(), ", gate ", gate.toString(),
           "; expected one dtype for x and the weights, and f32 gates (f64 in f64)");
  const int64_t rows = std::accumulate(dispatch.num_rows.begin(), dispatch.num_rows.end(), int64_t{0});
  SY_CHECK(static_cast<int64_t>(dispatch.num_rows.size()) == wi.size(0) && dispatch.token.dim() == 1 &&
               dispatch.token.size(0) == rows && gate.dim() == 1 && gate.size(0) == rows,
           "experts_feed_forward: ", dispatch.num_rows.size(), " row counts that sum to ", rows, " for ", wi.size(0), " experts, ",
           dispatch.token.sizes(), " tokens and ", gate.sizes(), " gates");
  return reference::experts_feed_forward(x, gate, dispatch, wi, wi_1, wo, options);
}

}  // namespace switchyard::ops
