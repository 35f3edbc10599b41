#include "ops/layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "kernels/rms_norm.h"
#include "kernels/stream.h"
#include "ops/backend.h"
#include "ops/product.h"
#include "ops/quantized.h"
#include "ops/reference.h"

namespace switchyard::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool is_wide(at::ScalarType dtype) { return dtype == at::kFloat || dtype == at::kDouble; }

// Saves x and makes the statistic again in the backward pass: a row is read into cache anyway.
struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& scale, double epsilon,
                            at::ScalarType out_dtype) {
    const auto x = input.contiguous();
    const int64_t d_model = x.size(-1), rows = x.numel() / d_model;
    auto y = at::empty(x.sizes(), x.options().dtype(out_dtype));
    with_kernel_type(out_dtype, [&](auto type) {
      kernels::rms_norm(read<float>(x), read<float>(scale), write<decltype(type)>(y), rows, d_model,
                        static_cast<float>(epsilon));
    });
    context->save_for_backward({x, scale});
    context->saved_data["epsilon"] = epsilon;
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &scale = saved[1];
    const auto grad_y = grads[0].contiguous();
    const int64_t d_model = x.size(-1), rows = x.numel() / d_model;
    auto grad_x = at::empty_like(x), grad_scale = at::empty_like(scale);
    const auto epsilon = static_cast<float>(context->saved_data["epsilon"].toDouble());
    with_kernel_type(grad_y.scalar_type(), [&](auto type) {
      kernels::rms_norm_backward(read<float>(x), read<float>(scale), read<decltype(type)>(grad_y), write<float>(grad_x),
                                 write<float>(grad_scale), rows, d_model, epsilon);
    });
    return {grad_x, grad_scale, at::Tensor(), at::Tensor()};
  }
};

struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows, const at::Tensor& weight) {
    context->save_for_backward({rows, weight});
    return product_transposed(rows, weight.unsqueeze(0), {rows.size(0)});
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto &rows = saved[0], &weight = saved[1];
    const auto grad = grads[0].contiguous();
    const std::vector<int64_t> num_rows = {rows.size(0)};
    return {context->needs_input_grad(0) ? product(grad, weight.unsqueeze(0), num_rows) : at::Tensor(),
            context->needs_input_grad(1) ? product_of_columns(grad, rows, num_rows).squeeze(0) : at::Tensor()};
  }
};

struct AddResidual : torch::autograd::Function<AddResidual> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& delta) {
    const auto stream = x.contiguous(), change = delta.contiguous();
    auto sum = at::empty_like(stream);
    with_kernel_type(change.scalar_type(), [&](auto type) {
      kernels::add_to_stream(read<float>(stream), read<decltype(type)>(change), write<float>(sum), sum.numel());
    });
    context->saved_data["dtype"] = static_cast<int64_t>(delta.scalar_type());
    return sum;
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto dtype = static_cast<at::ScalarType>(context->saved_data["dtype"].toInt());
    return {grads[0], context->needs_input_grad(1) ? grads[0].to(dtype) : at::Tensor()};
  }
};

struct Embedding : torch::autograd::Function<Embedding> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& weight, const at::Tensor& ids) {
    context->save_for_backward({ids});
    context->saved_data["vocab"] = weight.size(0);
    return reference::embedding(weight, ids);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto ids = context->get_saved_variables()[0];
    const auto grad = grads[0].contiguous();
    auto table = at::zeros({context->saved_data["vocab"].toInt(), grad.size(-1)}, grad.options());
    kernels::scatter_add_rows(read<float>(grad), read<int64_t>(ids), write<float>(table), ids.numel(), grad.size(-1));
    return {table, at::Tensor()};
  }
};

struct Dropout : torch::autograd::Function<Dropout> {
  static at::Tensor drop(const at::Tensor& input, double rate, const kernels::StreamKey& key, int64_t first_example,
                         const at::Tensor& example) {
    const auto x = input.contiguous();
    auto y = at::empty_like(x);
    const bool packed = example.defined();
    const kernels::RowDropout dropout{static_cast<float>(rate), key, packed ? 0 : first_example,
                                      /*rows_per_number=*/x.size(1), packed ? read<int64_t>(example) : nullptr};
    with_kernel_type(x.scalar_type(), [&](auto type) {
      using T = decltype(type);
      kernels::drop_channels(read<T>(x), dropout, write<T>(y), x.size(0) * x.size(1), x.size(2));
    });
    return y;
  }
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, double rate, const kernels::StreamKey& key,
                            int64_t first_example, const std::optional<at::Tensor>& example) {
    context->save_for_backward({example.value_or(at::Tensor())});
    context->saved_data["rate"] = rate;
    context->saved_data["key"] = static_cast<int64_t>(uint64_t{key[0]} << 32 | key[1]);
    context->saved_data["first_example"] = first_example;
    return drop(x, rate, key, first_example, example.value_or(at::Tensor()));
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto key = static_cast<uint64_t>(context->saved_data["key"].toInt());
    return {drop(grads[0], context->saved_data["rate"].toDouble(),
                 {static_cast<uint32_t>(key >> 32), static_cast<uint32_t>(key)},
                 context->saved_data["first_example"].toInt(), context->get_saved_variables()[0]),
            at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& scale, double epsilon, at::ScalarType out_dtype) {
  SY_CHECK(is_wide(x.scalar_type()) && x.dim() > 0 && scale.dim() == 1 && scale.size(0) == x.size(-1) &&
               scale.scalar_type() == x.scalar_type(),
           "rms_norm: expected x [..., d_model] f32 or f64 and scale [d_model] of its dtype, got ", x.toString(), " ",
           x.sizes(), " and ", scale.toString(), " ", scale.sizes());
  const bool known_output = out_dtype == at::kFloat || out_dtype == at::kBFloat16;
  if (!known_output || !is_fused(x, Kernel::kVectors, {x.size(-1)}))
    return reference::rms_norm(x, scale, epsilon, out_dtype);
  return RmsNorm::apply(x, scale.contiguous(), epsilon, out_dtype);
}

at::Tensor add_residual(const at::Tensor& x, const at::Tensor& delta) {
  SY_CHECK(x.sizes() == delta.sizes(), "add_residual: the stream is ", x.sizes(), ", the sublayer gave ",
           delta.sizes());
  if (!is_fused(x) || !is_fused(delta) || x.scalar_type() != at::kFloat) return reference::add_residual(x, delta);
  return AddResidual::apply(x, delta);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight) {
  SY_CHECK(
      x.dim() > 0 && weight.dim() == 2 && x.size(-1) == inputs_of(weight) && takes_rows_of(weight, x.scalar_type()),
      "linear: expected x [..., in] and weight [out, in] of one dtype, got ", x.toString(), " ", x.sizes(), " and ",
      weight.toString(), " ", weight.sizes());
  auto sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  const auto rows = x.reshape({-1, x.size(-1)});
  if (is_quantized(weight)) return product_transposed(rows, weight.unsqueeze(0), {rows.size(0)}).view(sizes);
  return (is_fused(x) ? Linear::apply(rows, weight) : at::mm(rows, weight.t())).view(sizes);
}

namespace {

at::Tensor rows_of_table(const at::Tensor& weight, const at::Tensor& ids) {
  if (!is_fused(weight) || weight.scalar_type() != at::kFloat) return reference::embedding(weight, ids);
  return Embedding::apply(weight, ids.contiguous());
}

}  // namespace

at::Tensor embedding(const at::Tensor& weight, const at::Tensor& ids, const VocabularyPart& part) {
  const int64_t vocab = part.split == nullptr ? weight.size(0) : part.vocab;
  SY_CHECK(weight.dim() == 2 && ids.scalar_type() == at::kLong,
           "embedding: expected weight [vocab, d_model] and int64 ids, got ", weight.sizes(), " and ", ids.toString());
  if (ids.numel() > 0) {
    const auto lowest = ids.min().item<int64_t>(), highest = ids.max().item<int64_t>();
    SY_CHECK(lowest >= 0 && highest < vocab, "embedding: id ", lowest < 0 ? lowest : highest,
             " is outside the table of ", vocab, " rows; is this the vocabulary that the model was trained with?");
  }
  if (part.split == nullptr) return rows_of_table(weight, ids);
  const auto local = ids - part.first;
  const auto is_here = local.ge(0).logical_and(local.lt(weight.size(0)));
  const auto rows = rows_of_table(weight, local * is_here);
  return part.split->sum_of_parts(rows * is_here.unsqueeze(-1));
}

at::Tensor dropout(const at::Tensor& x, double rate, const NoiseKey& key, int64_t first_example,
                   const at::Tensor& example) {
  SY_CHECK(rate >= 0.0 && rate < 1.0, "dropout: rate ", rate, " is not in [0, 1)");
  if (rate == 0.0) return x;
  SY_CHECK(x.dim() == 3, "dropout: expected [batch, length, channels], got ", x.sizes());
  SY_CHECK(!example.defined() || (example.dim() == 2 && example.size(0) == x.size(0) && example.size(1) == x.size(1) &&
                                  example.scalar_type() == at::kLong),
           "dropout: expected int64 examples [", x.size(0), ", ", x.size(1), "]");
  if (!is_fused(x, Kernel::kVectors, {x.size(2)}))
    return reference::dropout(x, rate, key, first_example, /*first_channel=*/0, example);
  return Dropout::apply(x, rate, stream_key(key), first_example,
                        example.defined() ? std::optional(example.contiguous()) : std::nullopt);
}

at::Tensor activation(const at::Tensor& x, Activation activation) { return reference::activation(x, activation); }

}  // namespace switchyard::ops
