// Between tokens and experts: which rows experts work on, the way there and the way back.
//
//   rows = dispatch_rows(x, dispatch);  rows = expert_rows(rows, ...);  y = combine_rows(rows, gate, dispatch, tokens);
//
// A TokenExchange may stand on both sides of expert_rows where experts live elsewhere.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

namespace switchyard::ops {

// The rows of each expert, listed expert by expert, within an expert in token order. Tensors of one device; the number
// of rows is known from their sizes, without reading them.
struct Dispatch {
  at::Tensor token;    // [rows] i64: the row's token among those of the layer's input
  at::Tensor number;   // [rows] i64: the token's number in the step's whole batch, by which noise is drawn
  at::Tensor offsets;  // [num_experts + 1] i64: expert e has rows offsets[e] to offsets[e + 1] - 1

  int64_t num_experts() const { return offsets.size(0) - 1; }
  int64_t num_rows() const { return token.size(0); }
  std::vector<int64_t> rows_by_expert() const;  // [num_experts], read from the device
};

// A dispatch of `token` [rows] i64 on the CPU, num_rows [num_experts] of them to each expert in turn; token t is number
// first_token + t of the step, or with a list number[t].
Dispatch make_dispatch(const at::Tensor& token, const std::vector<int64_t>& num_rows, int64_t first_token = 0,
                       const at::Tensor& number = {});

// rows[r] = x[token[r]]. x [tokens, d_model]; result [rows, d_model] in its dtype. Differentiable; sums have a fixed
// order.
at::Tensor dispatch_rows(const at::Tensor& x, const Dispatch& dispatch);

// y[t] = sum over the rows r of token t, in their order, of gate[r] * rows[r]; 0 for a token without a row, which
// passes by its residual. rows [rows, d_model]; gate [rows] f32 (f64 for f64); result [tokens, d_model] in the rows'
// dtype. Differentiable in rows and gate. Throws Error on other shapes or dtypes.
at::Tensor combine_rows(const at::Tensor& rows, const at::Tensor& gate, const Dispatch& dispatch, int64_t tokens);

// What an exchange remembers of the rows' way to the experts.
struct RowRoute {
  virtual ~RowRoute() = default;
};

// Rows that wait at experts, and which expert's they are.
struct RowsAtExperts {
  at::Tensor rows;    // [rows, d_model]
  Dispatch dispatch;  // over the experts that are here; `token` has no meaning on the other side of an exchange
  std::shared_ptr<const RowRoute> route = {};  // for the exchange alone
};

// Carries rows to where their experts are and back; both ways are differentiable. parallel/ has the implementations.
class TokenExchange {
 public:
  virtual ~TokenExchange() = default;
  virtual RowsAtExperts to_experts(const at::Tensor& rows, const Dispatch& dispatch) const = 0;
  // rows [rows, d_model] in the order of `there.rows`; the result is in the order in which to_experts() got its rows.
  virtual at::Tensor to_tokens(const at::Tensor& rows, const RowsAtExperts& there) const = 0;
};

}  // namespace switchyard::ops
