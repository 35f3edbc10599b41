#include "ops/experts.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>
#include <utility>

#include "base/error.h"
#include "ops/hidden_layer.h"
#include "ops/product.h"
#include "ops/quantized.h"
#include "ops/reference.h"

namespace switchyard::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct ExpertRows : torch::autograd::Function<ExpertRows> {
  // What the backward pass needs besides tensors.
  struct Saved : torch::CustomClassHolder {
    Saved(const Dispatch& dispatch, const ExpertsOptions& options_)
        : number(dispatch.number), num_rows(dispatch.rows_by_expert()), options(options_) {}
    at::Tensor number;
    std::vector<int64_t> num_rows;
    ExpertsOptions options;

    HiddenLayer layer() const {
      return {kernel_activation(options.activation).value(),
              {static_cast<float>(options.dropout_rate), stream_key(options.key), 0, 1, read<int64_t>(number),
               options.first_feature}};
    }
  };

  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows, const at::Tensor& wi,
                            const std::optional<at::Tensor>& wi_1, const at::Tensor& wo, const Dispatch& dispatch,
                            const ExpertsOptions& options) {
    auto saved = c10::make_intrusive<Saved>(dispatch, options);
    const auto& num_rows = saved->num_rows;
    const auto layer = saved->layer();
    const bool is_plain_relu = layer.activation == kernels::Activation::kRelu && !wi_1;
    const bool packs_few = options.packs_few;
    const auto a =
        product_transposed(rows, wi, num_rows, is_plain_relu ? Epilogue::kRelu : Epilogue::kStore, {}, packs_few);
    const auto b = wi_1 ? product_transposed(rows, *wi_1, num_rows, Epilogue::kStore, {}, packs_few) : at::Tensor();
    const auto hidden = is_plain_relu ? a : at::empty_like(a);
    if (!is_plain_relu || layer.dropout.rate > 0.0F) layer.forward(a, b, hidden);
    auto out = product_transposed(hidden, wo, num_rows, Epilogue::kStore, {}, packs_few);
    context->save_for_backward({rows, wi, wi_1.value_or(at::Tensor()), wo, a, b});
    context->saved_data["saved"] = c10::IValue::make_capsule(std::move(saved));
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto tensors = context->get_saved_variables();
    const auto &rows = tensors[0], &wi = tensors[1], &wi_1 = tensors[2], &wo = tensors[3], &a = tensors[4],
               &b = tensors[5];
    const auto capsule = context->saved_data["saved"].toCapsule();
    const auto& saved = static_cast<const Saved&>(*capsule);
    const auto& num_rows = saved.num_rows;
    const auto grad_out = grads[0].contiguous();

    const auto layer = saved.layer();
    const bool is_plain_relu = layer.activation == kernels::Activation::kRelu && !wi_1.defined();
    const auto grad_a = product(grad_out, wo, num_rows);
    const auto grad_b = b.defined() ? at::empty_like(b) : at::Tensor();
    const auto hidden = is_plain_relu ? a : at::empty_like(a);
    layer.backward(a, b, grad_a, grad_a, grad_b, is_plain_relu ? at::Tensor() : hidden);

    at::Tensor grad_rows;
    if (context->needs_input_grad(0)) {
      grad_rows = product(grad_a, wi, num_rows);
      if (b.defined()) product(grad_b, wi_1, num_rows, Epilogue::kAdd, grad_rows);
    }
    return {grad_rows,
            product_of_columns(grad_a, rows, num_rows),
            b.defined() ? product_of_columns(grad_b, rows, num_rows) : at::Tensor(),
            product_of_columns(grad_out, hidden, num_rows),
            at::Tensor(),
            at::Tensor()};
  }
};

// One product an expert, for the queries, keys and values of Switch attention.
struct ExpertRowsLinear : torch::autograd::Function<ExpertRowsLinear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows, const at::Tensor& weight,
                            const Dispatch& dispatch) {
    const auto num_rows = dispatch.rows_by_expert();
    context->save_for_backward({rows, weight});
    context->saved_data["num_rows"] = num_rows;
    return product_transposed(rows, weight, num_rows);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto &rows = saved[0], &weight = saved[1];
    const auto num_rows = context->saved_data["num_rows"].toIntVector();
    const auto grad_out = grads[0].contiguous();
    at::Tensor grad_rows;
    if (context->needs_input_grad(0)) grad_rows = product(grad_out, weight, num_rows);
    return {grad_rows, product_of_columns(grad_out, rows, num_rows), at::Tensor()};
  }
};

void check_rows(const char* what, const at::Tensor& rows, const Dispatch& dispatch, const at::Tensor& weight) {
  SY_CHECK(rows.dim() == 2 && rows.size(0) == dispatch.num_rows() && weight.dim() == 3 &&
               weight.size(0) == dispatch.num_experts() && inputs_of(weight) == rows.size(1) &&
               takes_rows_of(weight, rows.scalar_type()),
           what, ": expected rows [", dispatch.num_rows(), ", d_model] and a weight [", dispatch.num_experts(),
           ", out, d_model] of one dtype for the dispatch, got ", rows.toString(), " ", rows.sizes(), " and ",
           weight.toString(), " ", weight.sizes());
}

}  // namespace

namespace {

// No row depends on those of other experts, so that the result is that of all runs at once.
at::Tensor expert_rows_by_runs(const at::Tensor& rows, const Dispatch& dispatch, const at::Tensor& wi,
                               const at::Tensor& wi_1, const at::Tensor& wo, ExpertsOptions options) {
  const auto num_rows = dispatch.rows_by_expert();
  const auto& runs = *std::exchange(options.runs, nullptr);
  std::vector<at::Tensor> parts;
  runs(num_rows, [&](Slice run) {
    if (run.size() == dispatch.num_experts())
      return parts.push_back(expert_rows(rows, dispatch, wi, wi_1, wo, options));
    const auto first = std::accumulate(num_rows.begin(), num_rows.begin() + run.begin, int64_t{0});
    const auto count = std::accumulate(num_rows.begin() + run.begin, num_rows.begin() + run.end, int64_t{0});
    const Dispatch part{dispatch.token.narrow(0, first, count), dispatch.number.narrow(0, first, count),
                        dispatch.offsets.narrow(0, run.begin, run.size() + 1) - first};
    const auto of_run = [&](const at::Tensor& matrices) {
      return matrices.defined() ? matrices.narrow(0, run.begin, run.size()) : matrices;
    };
    parts.push_back(expert_rows(rows.narrow(0, first, count), part, of_run(wi), of_run(wi_1), of_run(wo), options));
  });
  return parts.size() == 1 ? parts[0] : at::cat(parts);
}

}  // namespace

at::Tensor expert_rows(const at::Tensor& rows, const Dispatch& dispatch, const at::Tensor& wi, const at::Tensor& wi_1,
                       const at::Tensor& wo, const ExpertsOptions& options) {
  if (options.runs != nullptr) return expert_rows_by_runs(rows, dispatch, wi, wi_1, wo, options);
  check_rows("expert_rows", rows, dispatch, wi);
  SY_CHECK(
      wo.dim() == 3 && wo.size(0) == wi.size(0) && wo.size(1) == rows.size(1) && inputs_of(wo) == wi.size(1) &&
          takes_rows_of(wo, rows.scalar_type()) &&
          (!wi_1.defined() || (wi_1.sizes() == wi.sizes() && takes_rows_of(wi_1, rows.scalar_type()))),
      "expert_rows: expected wi [num_experts, d_ff, d_model] and wo [num_experts, d_model, d_ff] of one dtype, got ",
      wi.toString(), " ", wi.sizes(), " and ", wo.toString(), " ", wo.sizes());
  if (!kernel_activation(options.activation) || !has_aligned_noise(options.dropout_rate, options.first_feature) ||
      !is_fused(rows, Kernel::kVectors, {rows.size(1), wi.size(1)}))
    return reference::expert_rows(rows, dispatch, values_of(wi, rows.scalar_type()),
                                  wi_1.defined() ? values_of(wi_1, rows.scalar_type()) : wi_1,
                                  values_of(wo, rows.scalar_type()), options);
  return ExpertRows::apply(rows.contiguous(), wi, wi_1.defined() ? std::optional(wi_1) : std::nullopt, wo, dispatch,
                           options);
}

at::Tensor expert_rows_linear(const at::Tensor& rows, const Dispatch& dispatch, const at::Tensor& weight) {
  check_rows("expert_rows_linear", rows, dispatch, weight);
  if (!is_fused(rows, Kernel::kVectors, {rows.size(1), weight.size(1)}))
    return reference::expert_rows_linear(rows, dispatch, values_of(weight, rows.scalar_type()));
  return ExpertRowsLinear::apply(rows.contiguous(), weight, dispatch);
}

namespace {

// `work` on the rows of x where their experts are.
template <class Work>
at::Tensor at_experts(const at::Tensor& x, const at::Tensor& gate, const Dispatch& dispatch,
                      const TokenExchange* exchange, Work&& work) {
  const auto rows = dispatch_rows(x, dispatch);
  if (exchange == nullptr) return combine_rows(work(rows, dispatch), gate, dispatch, x.size(0));
  const auto there = exchange->to_experts(rows, dispatch);
  return combine_rows(exchange->to_tokens(work(there.rows, there.dispatch), there), gate, dispatch, x.size(0));
}

}  // namespace

at::Tensor experts_feed_forward(const at::Tensor& x, const at::Tensor& gate, const Dispatch& dispatch,
                                const at::Tensor& wi, const at::Tensor& wi_1, const at::Tensor& wo,
                                const ExpertsOptions& options, const TokenExchange* exchange) {
  return at_experts(x, gate, dispatch, exchange, [&](const at::Tensor& rows, const Dispatch& here) {
    return expert_rows(rows, here, wi, wi_1, wo, options);
  });
}

at::Tensor experts_linear(const at::Tensor& x, const at::Tensor& gate, const Dispatch& dispatch,
                          const at::Tensor& weight, const TokenExchange* exchange) {
  return at_experts(x, gate, dispatch, exchange, [&](const at::Tensor& rows, const Dispatch& here) {
    return expert_rows_linear(rows, here, weight);
  });
}

}  // namespace switchyard::ops
