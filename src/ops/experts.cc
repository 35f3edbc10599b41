#include "ops/experts.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>

#include "base/error.h"
#include "kernels/dispatch.h"
#include "ops/hidden_layer.h"
#include "ops/product.h"
#include "ops/reference.h"

namespace switchyard::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct ExpertsFeedForward : torch::autograd::Function<ExpertsFeedForward> {
  // Token lists and options, kept for the backward pass.
  struct Saved : torch::CustomClassHolder {
    Saved(const Dispatch& dispatch_, const ExpertsOptions& options_) : dispatch(dispatch_), options(options_) {}
    Dispatch dispatch;
    ExpertsOptions options;

    HiddenLayer layer() const {
      return {kernel_activation(options.activation).value(),
              {static_cast<float>(options.dropout_rate), stream_key(options.key), options.first_token, 1,
               read<int64_t>(dispatch.token)}};
    }
    bool covers(int64_t tokens) const { return dispatch.token.size(0) == tokens; }
  };

  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& gate,
                            const at::Tensor& wi, const std::optional<at::Tensor>& wi_1, const at::Tensor& wo,
                            const Dispatch& dispatch, const ExpertsOptions& options) {
    const auto x = input.contiguous();
    const auto& num_rows = dispatch.num_rows;
    const int64_t n = dispatch.token.size(0);
    auto saved = c10::make_intrusive<Saved>(dispatch, options);
    auto rows = at::empty({n, x.size(1)}, x.options());
    // A token without a row gets 0: it passes by its residual.
    auto y = saved->covers(x.size(0)) ? at::empty_like(x) : at::zeros_like(x);
    with_kernel_type(x.scalar_type(), [&](auto type) {
      using T = decltype(type);
      kernels::dispatch_rows(read<T>(x), read<int64_t>(dispatch.token), write<T>(rows), n, x.size(1));
    });
    const auto layer = saved->layer();
    const bool is_plain_relu = layer.activation == kernels::Activation::kRelu && !wi_1;
    const auto a = product_transposed(rows, wi, num_rows, is_plain_relu ? Epilogue::kRelu : Epilogue::kStore);
    const auto b = wi_1 ? product_transposed(rows, *wi_1, num_rows) : at::Tensor();
    const auto hidden = is_plain_relu ? a : at::empty_like(a);
    if (!is_plain_relu || layer.dropout.rate > 0.0F) layer.forward(a, b, hidden);
    const auto out = product_transposed(hidden, wo, num_rows);
    with_kernel_type(x.scalar_type(), [&](auto type) {
      using T = decltype(type);
      kernels::combine_rows(read<T>(out), read<float>(gate), read<int64_t>(dispatch.token), write<T>(y), n, x.size(1));
    });
    context->save_for_backward({rows, gate, wi, wi_1.value_or(at::Tensor()), wo, a, b, out});
    context->saved_data["saved"] = c10::IValue::make_capsule(std::move(saved));
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto tensors = context->get_saved_variables();
    const auto &rows = tensors[0], &gate = tensors[1], &wi = tensors[2], &wi_1 = tensors[3], &wo = tensors[4],
               &a = tensors[5], &b = tensors[6], &out = tensors[7];
    const auto capsule = context->saved_data["saved"].toCapsule();
    const auto& saved = static_cast<const Saved&>(*capsule);
    const auto& [token, num_rows] = saved.dispatch;
    const auto grad_y = grads[0].contiguous();
    const int64_t n = rows.size(0), d_model = rows.size(1);

    const auto grad_out = at::empty_like(out), grad_gate = at::empty_like(gate);
    with_kernel_type(rows.scalar_type(), [&](auto type) {
      using T = decltype(type);
      kernels::combine_rows_backward(read<T>(grad_y), read<T>(out), read<float>(gate), read<int64_t>(token),
                                     write<T>(grad_out), write<float>(grad_gate), n, d_model);
    });

    const auto layer = saved.layer();
    const bool is_plain_relu = layer.activation == kernels::Activation::kRelu && !wi_1.defined();
    const auto grad_a = product(grad_out, wo, num_rows);
    const auto grad_b = b.defined() ? at::empty_like(b) : at::Tensor();
    const auto hidden = is_plain_relu ? a : at::empty_like(a);
    layer.backward(a, b, grad_a, grad_a, grad_b, is_plain_relu ? at::Tensor() : hidden);

    at::Tensor grad_x;
    if (context->needs_input_grad(0)) {
      const auto grad_rows = product(grad_a, wi, num_rows);
      if (b.defined()) product(grad_b, wi_1, num_rows, Epilogue::kAdd, grad_rows);
      grad_x = saved.covers(grad_y.size(0)) ? at::empty_like(grad_y) : at::zeros_like(grad_y);
      with_kernel_type(rows.scalar_type(), [&](auto type) {
        using T = decltype(type);
        kernels::combine_rows<T>(read<T>(grad_rows), nullptr, read<int64_t>(token), write<T>(grad_x), n, d_model);
      });
    }
    return {grad_x,
            grad_gate,
            product_of_columns(grad_a, rows, num_rows),
            b.defined() ? product_of_columns(grad_b, rows, num_rows) : at::Tensor(),
            product_of_columns(grad_out, hidden, num_rows),
            at::Tensor(),
            at::Tensor()};
  }
};

// The fused form writes each token's row once, so it wants no token twice.
bool no_token_twice(const at::Tensor& token, int64_t tokens) {
  if (token.size(0) > tokens) return false;
  std::vector<bool> seen(static_cast<size_t>(tokens), false);
  for (int64_t row = 0; row < token.size(0); ++row) {
    const auto index = static_cast<size_t>(read<int64_t>(token)[row]);
    if (seen[index]) return false;
    seen[index] = true;
  }
  return true;
}

}  // namespace

at::Tensor experts_feed_forward(const at::Tensor& x, const at::Tensor& gate, const Dispatch& dispatch,
                                const at::Tensor& wi, const at::Tensor& wi_1, const at::Tensor& wo,
                                const ExpertsOptions& options) {
  SY_CHECK(x.dim() == 2 && wi.dim() == 3 && wo.dim() == 3 && wi.size(2) == x.size(1) && wo.size(0) == wi.size(0) &&
               wo.size(1) == x.size(1) && wo.size(2) == wi.size(1) && (!wi_1.defined() || wi_1.sizes() == wi.sizes()),
           "experts_feed_forward: expected x [tokens, d_model], wi [num_experts, d_ff, d_model], wo [num_experts, "
           "d_model, d_ff], "
           "got ",
           x.sizes(), ", ", wi.sizes(), ", ", wo.sizes());
  SY_CHECK(wi.scalar_type() == x.scalar_type() && wo.scalar_type() == x.scalar_type() &&
               (!wi_1.defined() || wi_1.scalar_type() == x.scalar_type()) &&
               gate.scalar_type() == (x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat),
           "experts_feed_forward: x is ", x.toString(), ", wi ", wi.toString(), ", wo ", wo.toString(), ", gate ",
           gate.toString(), "; expected one dtype for x and the weights, and f32 gates (f64 in f64)");
  const int64_t rows = std::accumulate(dispatch.num_rows.begin(), dispatch.num_rows.end(), int64_t{0});
  SY_CHECK(static_cast<int64_t>(dispatch.num_rows.size()) == wi.size(0) && dispatch.token.dim() == 1 &&
               dispatch.token.size(0) == rows && gate.dim() == 1 && gate.size(0) == rows,
           "experts_feed_forward: ", dispatch.num_rows.size(), " row counts that sum to ", rows, " for ", wi.size(0),
           " experts, ", dispatch.token.sizes(), " tokens and ", gate.sizes(), " gates");
  const bool fused = is_fused(x) && kernel_activation(options.activation) && x.size(1) % 16 == 0 &&
                     wi.size(1) % 16 == 0 && no_token_twice(dispatch.token, x.size(0));
  if (!fused) return reference::experts_feed_forward(x, gate, dispatch, wi, wi_1, wo, options);
  return ExpertsFeedForward::apply(x, gate.contiguous(), wi, wi_1.defined() ? std::optional(wi_1) : std::nullopt, wo,
                                   dispatch, options);
}

}  // namespace switchyard::ops
