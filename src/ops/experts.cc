#include "ops/experts.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>

#include "base/error.h"
#include "kernels/dispatch.h"
#include "ops/hidden_layer.h"
#include "ops/product.h"
#include "ops/reference.h"
#include "ops/token_rows.h"

namespace switchyard::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// from [rows, width], gate [rows] or undefined (1): [tokens, width]. A token without a row gets 0: it passes by its
// residual.
at::Tensor combine(const at::Tensor& from, const at::Tensor& gate, const TokenRows& rows) {
  auto to = at::empty({rows.num_tokens(), from.size(1)}, from.options());
  with_kernel_type(from.scalar_type(), [&](auto type) {
    using T = decltype(type);
    kernels::combine_rows(read<T>(from), gate.defined() ? read<float>(gate) : nullptr,
                          {.first = rows.first.data(), .row = rows.row.data()}, write<T>(to), rows.num_tokens(),
                          from.size(1));
  });
  return to;
}

// x[token[row]] for each row.
at::Tensor rows_of(const at::Tensor& x, const at::Tensor& token) {
  auto rows = at::empty({token.size(0), x.size(1)}, x.options());
  with_kernel_type(x.scalar_type(), [&](auto type) {
    using T = decltype(type);
    kernels::dispatch_rows(read<T>(x), read<int64_t>(token), write<T>(rows), rows.size(0), x.size(1));
  });
  return rows;
}

// Gradients of combine(): those of the rows `out`, and of the gates.
std::pair<at::Tensor, at::Tensor> combine_backward(const at::Tensor& grad_y, const at::Tensor& out,
                                                   const at::Tensor& gate, const at::Tensor& token) {
  const auto grad_out = at::empty_like(out), grad_gate = at::empty_like(gate);
  with_kernel_type(out.scalar_type(), [&](auto type) {
    using T = decltype(type);
    kernels::combine_rows_backward(read<T>(grad_y), read<T>(out), read<float>(gate), read<int64_t>(token),
                                   write<T>(grad_out), write<float>(grad_gate), out.size(0), out.size(1));
  });
  return {grad_out, grad_gate};
}

struct ExpertsFeedForward : torch::autograd::Function<ExpertsFeedForward> {
  // Token lists and options, kept for the backward pass.
  struct Saved : torch::CustomClassHolder {
    Saved(const Dispatch& dispatch_, const ExpertsOptions& options_, int64_t tokens)
        : dispatch(dispatch_), options(options_), rows(dispatch_.token, tokens) {}
    Dispatch dispatch;
    ExpertsOptions options;
    TokenRows rows;

    HiddenLayer layer() const {
      return {kernel_activation(options.activation).value(),
              {static_cast<float>(options.dropout_rate), stream_key(options.key), options.first_token, 1,
               read<int64_t>(dispatch.token)}};
    }
  };

  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& gate,
                            const at::Tensor& wi, const std::optional<at::Tensor>& wi_1, const at::Tensor& wo,
                            const Dispatch& dispatch, const ExpertsOptions& options) {
    const auto x = input.contiguous();
    const auto& num_rows = dispatch.num_rows;
    auto saved = c10::make_intrusive<Saved>(dispatch, options, x.size(0));
    const auto rows = rows_of(x, dispatch.token);
    const auto layer = saved->layer();
    const bool is_plain_relu = layer.activation == kernels::Activation::kRelu && !wi_1;
    const auto a = product_transposed(rows, wi, num_rows, is_plain_relu ? Epilogue::kRelu : Epilogue::kStore);
    const auto b = wi_1 ? product_transposed(rows, *wi_1, num_rows) : at::Tensor();
    const auto hidden = is_plain_relu ? a : at::empty_like(a);
    if (!is_plain_relu || layer.dropout.rate > 0.0F) layer.forward(a, b, hidden);
    const auto out = product_transposed(hidden, wo, num_rows);
    const auto y = combine(out, gate, saved->rows);
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
    const auto [grad_out, grad_gate] = combine_backward(grad_y, out, gate, token);

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
      grad_x = combine(grad_rows, {}, saved.rows);
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

// One product an expert, for the queries, keys and values of Switch attention.
struct ExpertsLinear : torch::autograd::Function<ExpertsLinear> {
  struct Saved : torch::CustomClassHolder {
    Saved(const Dispatch& dispatch_, int64_t tokens) : dispatch(dispatch_), rows(dispatch_.token, tokens) {}
    Dispatch dispatch;
    TokenRows rows;
  };

  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& gate,
                            const at::Tensor& weight, const Dispatch& dispatch) {
    const auto rows = rows_of(input.contiguous(), dispatch.token);
    auto saved = c10::make_intrusive<Saved>(dispatch, input.size(0));
    const auto out = product_transposed(rows, weight, dispatch.num_rows);
    const auto y = combine(out, gate, saved->rows);
    context->save_for_backward({rows, gate, weight, out});
    context->saved_data["saved"] = c10::IValue::make_capsule(std::move(saved));
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto tensors = context->get_saved_variables();
    const auto &rows = tensors[0], &gate = tensors[1], &weight = tensors[2], &out = tensors[3];
    const auto capsule = context->saved_data["saved"].toCapsule();
    const auto& saved = static_cast<const Saved&>(*capsule);
    const auto& [token, num_rows] = saved.dispatch;
    const auto [grad_out, grad_gate] = combine_backward(grads[0].contiguous(), out, gate, token);
    at::Tensor grad_x;
    if (context->needs_input_grad(0)) grad_x = combine(product(grad_out, weight, num_rows), {}, saved.rows);
    return {grad_x, grad_gate, product_of_columns(grad_out, rows, num_rows), at::Tensor()};
  }
};

void check_dispatch(const char* what, const at::Tensor& x, const at::Tensor& gate, const Dispatch& dispatch,
                    int64_t num_experts) {
  const int64_t rows = std::accumulate(dispatch.num_rows.begin(), dispatch.num_rows.end(), int64_t{0});
  SY_CHECK(gate.scalar_type() == (x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat), what, ": x is ",
           x.toString(), ", gate ", gate.toString(), "; expected f32 gates (f64 in f64)");
  SY_CHECK(static_cast<int64_t>(dispatch.num_rows.size()) == num_experts && dispatch.token.dim() == 1 &&
               dispatch.token.size(0) == rows && gate.dim() == 1 && gate.size(0) == rows,
           what, ": ", dispatch.num_rows.size(), " row counts that sum to ", rows, " for ", num_experts, " experts, ",
           dispatch.token.sizes(), " tokens and ", gate.sizes(), " gates");
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
               (!wi_1.defined() || wi_1.scalar_type() == x.scalar_type()),
           "experts_feed_forward: x is ", x.toString(), ", wi ", wi.toString(), ", wo ", wo.toString(),
           "; expected one dtype for x and the weights");
  check_dispatch("experts_feed_forward", x, gate, dispatch, wi.size(0));
  if (!kernel_activation(options.activation) || !is_fused(x, Kernel::kVectors, {x.size(1), wi.size(1)}))
    return reference::experts_feed_forward(x, gate, dispatch, wi, wi_1, wo, options);
  return ExpertsFeedForward::apply(x, gate.contiguous(), wi, wi_1.defined() ? std::optional(wi_1) : std::nullopt, wo,
                                   dispatch, options);
}

at::Tensor experts_linear(const at::Tensor& x, const at::Tensor& gate, const Dispatch& dispatch,
                          const at::Tensor& weight) {
  SY_CHECK(x.dim() == 2 && weight.dim() == 3 && weight.size(2) == x.size(1) && weight.scalar_type() == x.scalar_type(),
           "experts_linear: expected x [tokens, d_model] and weight [num_experts, out, d_model] of one dtype, got ",
           x.toString(), " ", x.sizes(), " and ", weight.toString(), " ", weight.sizes());
  check_dispatch("experts_linear", x, gate, dispatch, weight.size(0));
  if (!is_fused(x, Kernel::kVectors, {x.size(1), weight.size(1)}))
    return reference::experts_linear(x, gate, dispatch, weight);
  return ExpertsLinear::apply(x, gate.contiguous(), weight, dispatch);
}

}  // namespace switchyard::ops
