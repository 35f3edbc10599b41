#include "ops/layers.h"

#include <ATen/ops/mm.h>

#include "base/error.h"
#include "ops/reference.h"

namespace switchyard::ops {
namespace {

bool reference_selected = false;

bool is_wide(at::ScalarType dtype) { return dtype == at::kFloat || dtype == at::kDouble; }

}  // namespace

void use_reference_kernels(bool reference) { reference_selected = reference; }
bool reference_kernels() { return reference_selected; }

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& scale, double epsilon, at::ScalarType out_dtype) {
  SY_CHECK(is_wide(x.scalar_type()) && x.dim() > 0 && scale.dim() == 1 && scale.size(0) == x.size(-1) &&
               scale.scalar_type() == x.scalar_type(),
           "rms_norm: expected x [..., d_model] f32 or f64 and scale [d_model] of its dtype, got ", x.toString(), " ", x.sizes(),
           " and ", scale.toString(), " ", scale.sizes());
  return reference::rms_norm(x, scale, epsilon, out_dtype);
}

at::Tensor add_residual(const at::Tensor& x, const at::Tensor& delta) {
  SY_CHECK(x.sizes() == delta.sizes(), "add_residual: the stream is ", x.sizes(), ", the sublayer gave ", delta.sizes());
  return reference::add_residual(x, delta);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight) {
  SY_CHECK(x.dim() > 0 && weight.dim() == 2 && x.size(-1) == weight.size(1) && x.scalar_type() == weight.scalar_type(),
           "linear: expected x [..., in] and weight [out, in] of one dtype, got ", x.toString(), " ", x.sizes(), " and ",
           weight.toString(), " ", weight.sizes());
  auto sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  return at::mm(x.reshape({-1, x.size(-1)}), weight.t()).view(sizes);
}

at::Tensor embedding(const at::Tensor& weight, const at::Tensor& ids) {
  SY_CHECK(weight.dim() == 2 && ids.scalar_type() == at::kLong, "embedding: expected weight [vocab, d_model] and int64 ids, got ",
           weight.sizes(), " and ", ids.toString());
  if (ids.numel() > 0) {
    const auto lowest = ids.min().item<int64_t>(), highest = ids.max().item<int64_t>();
    SY_CHECK(lowest >= 0 && highest < weight.size(0), "embedding: id ", lowest < 0 ? lowest : highest, " is outside the table of ",
             weight.size(0), " rows; is this the vocabulary that the model was trained with?");
  }
  return reference::embedding(weight, ids);
}

at::Tensor dropout(const at::Tensor& x, double rate, const NoiseKey& key, int64_t first_example) {
  SY_CHECK(rate >= 0.0 && rate < 1.0, "dropout: rate ", rate, " is not in [0, 1)");
  if (rate == 0.0) return x;
  SY_CHECK(x.dim() == 3, "dropout: expected [batch, length, channels], got ", x.sizes());
  return reference::dropout(x, rate, key, first_example);
}

at::Tensor activation(const at::Tensor& x, const std::string& name) { return reference::activation(x, name); }

}  // namespace switchyard::ops
