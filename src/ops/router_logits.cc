#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "kernels/noise.h"
#include "kernels/routing.h"
#include "ops/backend.h"
#include "ops/reference.h"
#include "ops/router.h"

namespace switchyard::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A noisy f32 copy of x that lives only as long as a product needs it; made again in the backward pass.
struct RouterLogits : torch::autograd::Function<RouterLogits> {
  struct Noise : torch::CustomClassHolder {
    explicit Noise(const RouterInputNoise& noise)
        : factors{static_cast<float>(noise.jitter), static_cast<float>(noise.dropout)},
          key(stream_key(noise.key)),
          first_token(static_cast<uint64_t>(noise.first_token)),
          number(noise.number.defined() ? noise.number.contiguous() : noise.number) {}
    kernels::ElementNoise factors;
    kernels::StreamKey key;
    uint64_t first_token;
    at::Tensor number;

    // x [tokens, d_model] times the factors, in `dtype`; one of the dtypes is f32.
    at::Tensor times(const at::Tensor& x, at::ScalarType dtype) const {
      if (factors.spread == 0.0F && factors.rate == 0.0F) return x.to(dtype);
      const auto from = x.contiguous();
      auto to = at::empty(x.sizes(), x.options().dtype(dtype));
      const int64_t rows = x.size(0), width = x.size(1);
      const auto* numbers = number.defined() ? read<int64_t>(number) : nullptr;
      if (dtype == at::kBFloat16)
        kernels::multiply_noise(key, first_token, numbers, read<float>(from), write<kernels::BFloat16>(to), rows, width,
                                factors);
      else
        with_kernel_type(x.scalar_type(), [&](auto type) {
          kernels::multiply_noise(key, first_token, numbers, read<decltype(type)>(from), write<float>(to), rows, width,
                                  factors);
        });
      return to;
    }
  };

  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, const RouterInputNoise& input_noise) {
    auto noise = c10::make_intrusive<Noise>(input_noise);
    const auto rows = noise->times(x, at::kFloat).contiguous(), table = weight.contiguous();
    const auto shift = bias ? bias->contiguous() : at::Tensor();
    auto logits = at::empty({x.size(0), weight.size(0)}, table.options());
    kernels::router_logits(read<float>(rows), read<float>(table), shift.defined() ? read<float>(shift) : nullptr,
                           rows.size(0), table.size(0), table.size(1), write<float>(logits));
    context->save_for_backward({x, weight});
    context->saved_data["noise"] = c10::IValue::make_capsule(std::move(noise));
    context->saved_data["has_bias"] =
        bias.has_value();  // an absent tensor has no place among the inputs that autograd counts
    return logits;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1];
    const auto capsule = context->saved_data["noise"].toCapsule();
    const auto& noise = static_cast<const Noise&>(*capsule);
    const auto grad = grads[0].contiguous();
    at::Tensor grad_x, grad_weight, grad_bias;
    if (context->needs_input_grad(0)) grad_x = noise.times(at::mm(grad, weight), x.scalar_type());
    if (context->needs_input_grad(1)) grad_weight = at::mm(grad.t(), noise.times(x, at::kFloat));
    if (context->saved_data["has_bias"].toBool() && context->needs_input_grad(2)) grad_bias = grad.sum(0);
    return {grad_x, grad_weight, grad_bias, at::Tensor()};
  }
};

}  // namespace

at::Tensor router_logits(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const RouterInputNoise& noise) {
  SY_CHECK(x.dim() == 2 && weight.dim() == 2 && weight.size(1) == x.size(1) &&
               (weight.scalar_type() == at::kFloat || weight.scalar_type() == at::kDouble),
           "router_logits: expected x [tokens, d_model] and weight [num_experts, d_model] f32 or f64, got ", x.sizes(),
           " and ", weight.toString(), " ", weight.sizes());
  SY_CHECK(!bias.defined() ||
               (bias.dim() == 1 && bias.size(0) == weight.size(0) && bias.scalar_type() == weight.scalar_type()),
           "router_logits: expected bias [", weight.size(0), "] of the weight's dtype");
  for (const auto& [name, amount] : {std::pair{"jitter", noise.jitter}, std::pair{"dropout", noise.dropout}})
    SY_CHECK(amount >= 0.0 && amount < 1.0, "router_logits: ", name, " ", amount, " is not in [0, 1)");
  SY_CHECK(noise.jitter == 0.0 || noise.dropout == 0.0, "router_logits: jitter and dropout together; expected one");
  SY_CHECK(!noise.number.defined() || (noise.number.numel() == x.size(0) && noise.number.scalar_type() == at::kLong),
           "router_logits: expected an int64 number for each of ", x.size(0), " tokens");
  if (!is_fused(x) || weight.scalar_type() != at::kFloat) return reference::router_logits(x, weight, bias, noise);
  return RouterLogits::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt, noise);
}

}  // namespace switchyard::ops
