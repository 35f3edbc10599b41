#include "ops/quantized.h"

#include <ATen/ops/empty.h>

#include "base/error.h"
#include "ops/backend.h"

namespace switchyard::ops {
namespace {

// Of 64 values with their scale an int4 row has 34 bytes.
constexpr int64_t kInt4GroupBytes = kernels::quantized_row_bytes(QuantizedForm::kInt4, kernels::kQuantizedGroup);

std::vector<int64_t> with_last(const at::Tensor& matrix, int64_t size) {
  auto sizes = matrix.sizes().vec();
  sizes.back() = size;
  return sizes;
}

}  // namespace

std::optional<QuantizedForm> quantized_form(at::ScalarType dtype) {
  if (dtype == at::kChar) return QuantizedForm::kInt8;
  if (dtype == at::kByte) return QuantizedForm::kInt4;
  return std::nullopt;
}

bool is_quantized(at::ScalarType dtype) { return quantized_form(dtype).has_value(); }
bool is_quantized(const at::Tensor& matrix) { return matrix.defined() && is_quantized(matrix.scalar_type()); }

at::ScalarType quantized_dtype(QuantizedForm form) { return form == QuantizedForm::kInt8 ? at::kChar : at::kByte; }

int64_t inputs_of(const at::Tensor& matrix) {
  const int64_t last = matrix.size(-1);
  const auto form = quantized_form(matrix.scalar_type());
  if (!form) return last;
  return *form == QuantizedForm::kInt8 ? last - 4 : last / kInt4GroupBytes * kernels::kQuantizedGroup;
}

bool takes_rows_of(const at::Tensor& matrix, at::ScalarType dtype) {
  return (is_quantized(matrix) ? at::kBFloat16 : matrix.scalar_type()) == dtype;
}

at::Tensor quantize(const at::Tensor& matrix, QuantizedForm form) {
  const int64_t inner = matrix.size(-1);
  SY_CHECK(inner % kernels::kQuantizedGroup == 0, "a matrix ", matrix.sizes(),
           " cannot be quantised: expected rows of a ", "multiple of ", kernels::kQuantizedGroup, " values");
  const auto values = matrix.to(at::kFloat).contiguous();
  auto result = at::empty(with_last(matrix, kernels::quantized_row_bytes(form, inner)), quantized_dtype(form));
  kernels::quantize_rows(form, read<float>(values), values.numel() / inner, inner, write<uint8_t>(result));
  return result;
}

at::Tensor dequantize(const at::Tensor& matrix, at::ScalarType dtype) {
  const int64_t inner = inputs_of(matrix);
  const auto rows = matrix.contiguous();
  auto values = at::empty(with_last(matrix, inner), at::kFloat);
  kernels::dequantize_rows(quantized_form(matrix.scalar_type()).value(), read<uint8_t>(rows), values.numel() / inner,
                           inner, write<float>(values));
  return values.to(dtype);
}

at::Tensor values_of(const at::Tensor& matrix, at::ScalarType dtype) {
  return is_quantized(matrix) ? dequantize(matrix, dtype) : matrix;
}

}  // namespace switchyard::ops
