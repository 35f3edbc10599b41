#include "base/error.h"
#include "ops/layers.h"
#include "ops/reference.h"

namespace switchyard::ops {

at::Tensor feed_forward(const at::Tensor& x, const at::Tensor& wi, const at::Tensor& wi_1, const at::Tensor& wo,
                        const FeedForwardOptions& options) {
  SY_CHECK(x.dim() == 3 && wi.dim() == 2 && wo.dim() == 2 && wi.size(1) == x.size(2) && wo.size(1) == wi.size(0) &&
               (!wi_1.defined() || wi_1.sizes() == wi.sizes()),
           "feed_forward: expected x [batch, length, d_model], wi [d_ff, d_model], wo [d_model, d_ff], got ", x.sizes(), ", ",
           wi.sizes(), ", ", wo.sizes());
  return reference::feed_forward(x, wi, wi_1, wo, options);
}

}  // namespace switchyard::ops
