#include "ops/product.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/relu.h>

#include "base/error.h"
#include "ops/backend.h"
#include "ops/quantized.h"

namespace switchyard::ops {
namespace {

// Calls function(matrix, first_row, rows) for the matrices that have rows.
template <class Function>
void for_each_matrix(const std::vector<int64_t>& num_rows, Function&& function) {
  int64_t start = 0;
  for (size_t matrix = 0; matrix < num_rows.size(); ++matrix) {
    if (num_rows[matrix] > 0) function(static_cast<int64_t>(matrix), start, num_rows[matrix]);
    start += num_rows[matrix];
  }
}

// With quantised matrices. out [rows, columns], bf16 or f32.
void run_quantized(const at::Tensor& rows, const at::Tensor& matrices, std::span<const int64_t> num_rows,
                   Epilogue epilogue, const at::Tensor& out, bool packs_few) {
  const auto a = rows.contiguous(), b = matrices.contiguous();
  with_kernel_type(out.scalar_type(), [&](auto type) {
    using C = decltype(type);
    kernels::multiply<C>(kernels::QuantizedProduct<C>{.a = read<kernels::BFloat16>(a),
                                                      .b = read<uint8_t>(b),
                                                      .c = write<C>(out),
                                                      .num_rows = num_rows,
                                                      .inner = inputs_of(b),
                                                      .columns = out.size(1),
                                                      .form = quantized_form(b.scalar_type()).value(),
                                                      .epilogue = epilogue,
                                                      .packs_few = packs_few});
  });
}

at::Tensor run(const at::Tensor& rows, const at::Tensor& matrices, const std::vector<int64_t>& num_rows,
               bool transposed, Epilogue epilogue, at::Tensor out, bool packs_few = false) {
  const auto a = rows.contiguous(), b = matrices.contiguous();
  SY_CHECK(a.scalar_type() == b.scalar_type(), "a product of ", a.toString(), " rows with a ", b.toString(),
           " matrix; expected one dtype (gradients of quantised matrices, and through them, are not computed)");
  const int64_t inner = a.size(1), columns = b.size(transposed ? 1 : 2);
  if (!out.defined()) out = at::empty({a.size(0), columns}, a.options());
  if (is_fused(a, Kernel::kPanels, {inner, columns})) {
    with_kernel_type(a.scalar_type(), [&](auto type) {
      using T = decltype(type);
      kernels::multiply<T, T>({.a = read<T>(a),
                               .b = read<T>(b),
                               .c = write<T>(out),
                               .num_rows = num_rows,
                               .inner = inner,
                               .columns = columns,
                               .transposed = transposed,
                               .epilogue = epilogue,
                               .packs_few = packs_few});
    });
    return out;
  }
  for_each_matrix(num_rows, [&](int64_t matrix, int64_t start, int64_t count) {
    auto part = out.narrow(0, start, count);
    const auto left = a.narrow(0, start, count), stored = b.select(0, matrix), right = transposed ? stored.t() : stored;
    if (epilogue == Epilogue::kAdd) {
      part.addmm_(left, right);
      return;
    }
    if (transposed && count <= kFewRows) {
      // Row by row, as ATen's sums depend on the number of rows and a decoded row's must not.
      for (int64_t row = 0; row < count; ++row) {
        auto one = part.narrow(0, row, 1);
        at::mm_out(one, left.narrow(0, row, 1), right);
      }
    } else {
      at::mm_out(part, left, right);
    }
    if (epilogue == Epilogue::kRelu) at::relu_(part);
  });
  return out;
}

}  // namespace

at::Tensor product_transposed(const at::Tensor& a, const at::Tensor& b, const std::vector<int64_t>& num_rows,
                              Epilogue epilogue, at::Tensor out, bool packs_few) {
  if (is_quantized(b)) {
    if (!out.defined()) out = at::empty({a.size(0), b.size(1)}, a.options());
    run_quantized(a, b, num_rows, epilogue, out, packs_few);
    return out;
  }
  return run(a, b, num_rows, /*transposed=*/true, epilogue, std::move(out), packs_few);
}

at::Tensor product(const at::Tensor& a, const at::Tensor& b, const std::vector<int64_t>& num_rows, Epilogue epilogue,
                   at::Tensor out) {
  return run(a, b, num_rows, /*transposed=*/false, epilogue, std::move(out));
}

at::Tensor product_f32(const at::Tensor& a, const at::Tensor& b) {
  const auto rows = a.contiguous(), matrix = b.contiguous();
  auto out = at::empty({a.size(0), b.size(0)}, a.options().dtype(at::kFloat));
  const int64_t num_rows = a.size(0);
  if (is_quantized(b)) {
    run_quantized(rows, matrix, {&num_rows, 1}, Epilogue::kStore, out, /*packs_few=*/false);
    return out;
  }
  with_kernel_type(a.scalar_type(), [&](auto type) {
    using T = decltype(type);
    kernels::multiply<T, float>({.a = read<T>(rows),
                                 .b = read<T>(matrix),
                                 .c = write<float>(out),
                                 .num_rows = {&num_rows, 1},
                                 .inner = a.size(1),
                                 .columns = b.size(0),
                                 .transposed = true});
  });
  return out;
}

at::Tensor product_of_columns(const at::Tensor& grad, const at::Tensor& rows, const std::vector<int64_t>& num_rows) {
  auto result = at::empty({static_cast<int64_t>(num_rows.size()), grad.size(1), rows.size(1)}, rows.options());
  if (is_fused(rows, Kernel::kPanels, {grad.size(1), rows.size(1)})) {
    const auto left = grad.contiguous(), right = rows.contiguous();
    with_kernel_type(rows.scalar_type(), [&](auto type) {
      using T = decltype(type);
      kernels::multiply_columns<T>({.grad = read<T>(left),
                                    .rows = read<T>(right),
                                    .c = write<T>(result),
                                    .num_rows = num_rows,
                                    .out = grad.size(1),
                                    .in = rows.size(1)});
    });
    return result;
  }
  for (size_t matrix = 0; matrix < num_rows.size(); ++matrix)
    if (num_rows[matrix] == 0) result.select(0, static_cast<int64_t>(matrix)).zero_();
  for_each_matrix(num_rows, [&](int64_t matrix, int64_t start, int64_t count) {
    auto part = result.select(0, matrix);
    at::mm_out(part, grad.narrow(0, start, count).t(), rows.narrow(0, start, count));
  });
  return result;
}

}  // namespace switchyard::ops
