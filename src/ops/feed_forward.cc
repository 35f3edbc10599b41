#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "ops/hidden_layer.h"
#include "ops/layers.h"
#include "ops/product.h"
#include "ops/quantized.h"
#include "ops/reference.h"

namespace switchyard::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Keeps the input and, with plain ReLU, the hidden layer; else what entered the activation and the gate.
struct FeedForward : torch::autograd::Function<FeedForward> {
  // The tensors of the options must outlive it.
  static HiddenLayer layer(const FeedForwardOptions& options, int64_t length) {
    const bool packed = options.example.defined();
    return {
        kernel_activation(options.activation).value(),
        {static_cast<float>(options.hidden_dropout_rate), stream_key(options.key), packed ? 0 : options.first_example,
         length, packed ? read<int64_t>(options.example) : nullptr, options.first_feature}};
  }

  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& wi,
                            const std::optional<at::Tensor>& wi_1, const at::Tensor& wo,
                            const FeedForwardOptions& options) {
    const auto rows = x.reshape({-1, x.size(2)});
    const std::vector<int64_t> num_rows = {rows.size(0)};
    const auto hidden_layer = layer(options, x.size(1));
    const bool is_plain_relu = hidden_layer.activation == kernels::Activation::kRelu && !wi_1;
    const auto a =
        product_transposed(rows, wi.unsqueeze(0), num_rows, is_plain_relu ? Epilogue::kRelu : Epilogue::kStore);
    const auto b = wi_1 ? product_transposed(rows, wi_1->unsqueeze(0), num_rows) : at::Tensor();
    const auto hidden = is_plain_relu ? a : at::empty_like(a);
    if (!is_plain_relu || hidden_layer.dropout.rate > 0.0F) hidden_layer.forward(a, b, hidden);
    context->save_for_backward({rows, wi, wi_1.value_or(at::Tensor()), wo, a, b});
    context->saved_data["options"] = c10::IValue::make_capsule(c10::make_intrusive<Saved>(options, x.size(1)));
    return product_transposed(hidden, wo.unsqueeze(0), num_rows).view(x.sizes());
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto &rows = saved[0], &wi = saved[1], &wi_1 = saved[2], &wo = saved[3], &a = saved[4], &b = saved[5];
    const auto capsule = context->saved_data["options"].toCapsule();
    const auto& call = static_cast<const Saved&>(*capsule);
    const auto grad_y = grads[0].reshape({-1, grads[0].size(-1)});
    const auto hidden_layer = layer(call.options, call.length);
    const bool is_plain_relu = hidden_layer.activation == kernels::Activation::kRelu && !wi_1.defined();
    const std::vector<int64_t> num_rows = {rows.size(0)};

    const auto grad_a = product(grad_y, wo.unsqueeze(0), num_rows);
    const auto grad_b = b.defined() ? at::empty_like(b) : at::Tensor();
    const auto hidden = is_plain_relu ? a : at::empty_like(a);
    hidden_layer.backward(a, b, grad_a, grad_a, grad_b, is_plain_relu ? at::Tensor() : hidden);

    at::Tensor grad_x;
    if (context->needs_input_grad(0)) {
      grad_x = product(grad_a, wi.unsqueeze(0), num_rows);
      if (b.defined()) product(grad_b, wi_1.unsqueeze(0), num_rows, Epilogue::kAdd, grad_x);
      grad_x = grad_x.view(grads[0].sizes());
    }
    return {grad_x, product_of_columns(grad_a, rows, num_rows).squeeze(0),
            b.defined() ? product_of_columns(grad_b, rows, num_rows).squeeze(0) : at::Tensor(),
            product_of_columns(grad_y, hidden, num_rows).squeeze(0), at::Tensor()};
  }

 private:
  struct Saved : torch::CustomClassHolder {
    Saved(FeedForwardOptions options_, int64_t length_) : options(options_), length(length_) {}
    FeedForwardOptions options;
    int64_t length;
  };
};

}  // namespace

at::Tensor feed_forward(const at::Tensor& x, const at::Tensor& wi, const at::Tensor& wi_1, const at::Tensor& wo,
                        const FeedForwardOptions& options) {
  SY_CHECK(x.dim() == 3 && wi.dim() == 2 && wo.dim() == 2 && inputs_of(wi) == x.size(2) && wo.size(0) == x.size(2) &&
               inputs_of(wo) == wi.size(0) && (!wi_1.defined() || wi_1.sizes() == wi.sizes()),
           "feed_forward: expected x [batch, length, d_model], wi [d_ff, d_model], wo [d_model, d_ff], got ", x.sizes(),
           ", ", wi.sizes(), ", ", wo.sizes());
  SY_CHECK(takes_rows_of(wi, x.scalar_type()) && takes_rows_of(wo, x.scalar_type()) &&
               (!wi_1.defined() || takes_rows_of(wi_1, x.scalar_type())),
           "feed_forward: x is ", x.toString(), ", wi ", wi.toString(), ", wo ", wo.toString(), "; expected one dtype");
  if (!kernel_activation(options.activation) ||
      !has_aligned_noise(options.hidden_dropout_rate, options.first_feature) ||
      !is_fused(x, Kernel::kVectors, {wi.size(0)}))
    return reference::feed_forward(x, values_of(wi, x.scalar_type()),
                                   wi_1.defined() ? values_of(wi_1, x.scalar_type()) : wi_1,
                                   values_of(wo, x.scalar_type()), options);
  auto contiguous = options;
  if (options.example.defined()) contiguous.example = options.example.contiguous();
  return FeedForward::apply(x, wi, wi_1.defined() ? std::optional(wi_1) : std::nullopt, wo, contiguous);
}

}  // namespace switchyard::ops
