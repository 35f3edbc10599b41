#include "ops/dispatch.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>

#include "base/error.h"
#include "kernels/dispatch.h"
#include "ops/backend.h"
#include "ops/reference.h"
#include "ops/token_rows.h"

namespace switchyard::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// x[token[row]] for each row.
at::Tensor gather(const at::Tensor& x, const at::Tensor& token) {
  auto rows = at::empty({token.size(0), x.size(1)}, x.options());
  with_kernel_type(x.scalar_type(), [&](auto type) {
    using T = decltype(type);
    kernels::dispatch_rows(read<T>(x), read<int64_t>(token), write<T>(rows), rows.size(0), x.size(1));
  });
  return rows;
}

// The sum of each token's rows, times their gates if there are any. [tokens, width]
at::Tensor scatter(const at::Tensor& from, const at::Tensor& gate, const at::Tensor& token, int64_t tokens) {
  const TokenRows rows(token, tokens);
  auto to = at::empty({tokens, from.size(1)}, from.options());
  with_kernel_type(from.scalar_type(), [&](auto type) {
    using T = decltype(type);
    kernels::combine_rows(read<T>(from), gate.defined() ? read<float>(gate) : nullptr,
                          {.first = rows.first.data(), .row = rows.row.data()}, write<T>(to), tokens, from.size(1));
  });
  return to;
}

struct DispatchRows : torch::autograd::Function<DispatchRows> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& token) {
    context->save_for_backward({token});
    context->saved_data["tokens"] = x.size(0);
    return gather(x.contiguous(), token);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto token = context->get_saved_variables()[0];
    return {scatter(grads[0].contiguous(), {}, token, context->saved_data["tokens"].toInt()), at::Tensor()};
  }
};

struct CombineRows : torch::autograd::Function<CombineRows> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows, const at::Tensor& gate,
                            const at::Tensor& token, int64_t tokens) {
    context->save_for_backward({rows, gate, token});
    return scatter(rows, gate, token, tokens);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto &rows = saved[0], &gate = saved[1], &token = saved[2];
    const auto grad_y = grads[0].contiguous();
    const auto grad_rows = at::empty_like(rows), grad_gate = at::empty_like(gate);
    with_kernel_type(rows.scalar_type(), [&](auto type) {
      using T = decltype(type);
      kernels::combine_rows_backward(read<T>(grad_y), read<T>(rows), read<float>(gate), read<int64_t>(token),
                                     write<T>(grad_rows), write<float>(grad_gate), rows.size(0), rows.size(1));
    });
    return {grad_rows, grad_gate, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

std::vector<int64_t> Dispatch::rows_by_expert() const {
  const auto bounds = offsets.cpu();
  std::vector<int64_t> result(static_cast<size_t>(num_experts()));
  for (size_t expert = 0; expert < result.size(); ++expert)
    result[expert] = read<int64_t>(bounds)[expert + 1] - read<int64_t>(bounds)[expert];
  return result;
}

Dispatch make_dispatch(const at::Tensor& token, const std::vector<int64_t>& num_rows, int64_t first_token,
                       const at::Tensor& number) {
  auto offsets = at::empty({static_cast<int64_t>(num_rows.size()) + 1}, at::kLong);
  auto* offset = write<int64_t>(offsets);
  *offset = 0;
  std::partial_sum(num_rows.begin(), num_rows.end(), offset + 1);
  SY_CHECK(token.dim() == 1 && offset[num_rows.size()] == token.size(0), "dispatch: ", num_rows.size(),
           " row counts that sum to ", offset[num_rows.size()], " for ", token.sizes(), " tokens");
  return {.token = token,
          .number = number.defined() ? number.cpu().index_select(0, token) : token + first_token,
          .offsets = offsets};
}

at::Tensor dispatch_rows(const at::Tensor& x, const Dispatch& dispatch) {
  SY_CHECK(x.dim() == 2, "dispatch_rows: expected x [tokens, d_model], got ", x.sizes());
  if (!is_fused(x, Kernel::kVectors, {x.size(1)})) return reference::dispatch_rows(x, dispatch);
  return DispatchRows::apply(x, dispatch.token);
}

at::Tensor combine_rows(const at::Tensor& rows, const at::Tensor& gate, const Dispatch& dispatch, int64_t tokens) {
  SY_CHECK(gate.scalar_type() == (rows.scalar_type() == at::kDouble ? at::kDouble : at::kFloat),
           "combine_rows: rows are ", rows.toString(), ", gate ", gate.toString(), "; expected f32 gates (f64 in f64)");
  SY_CHECK(
      rows.dim() == 2 && rows.size(0) == dispatch.num_rows() && gate.dim() == 1 && gate.size(0) == dispatch.num_rows(),
      "combine_rows: ", rows.sizes(), " rows and ", gate.sizes(), " gates for a dispatch of ", dispatch.num_rows());
  if (!is_fused(rows, Kernel::kVectors, {rows.size(1)})) return reference::combine_rows(rows, gate, dispatch, tokens);
  return CombineRows::apply(rows.contiguous(), gate.contiguous(), dispatch.token, tokens);
}

}  // namespace switchyard::ops
