#include "checkpoint/quantized_tensors.h"

#include <ATen/ops/empty.h>

#include "base/error.h"

namespace switchyard {
namespace {

using ops::QuantizedForm;

constexpr const char* kScaleSuffix = "_scale";
constexpr int64_t kGroup = kernels::kQuantizedGroup;

// Bytes of a row's integers; its scales follow in memory.
int64_t integer_bytes(QuantizedForm form, int64_t inner) { return form == QuantizedForm::kInt8 ? inner : inner / 2; }

at::ScalarType scale_dtype(QuantizedForm form) { return form == QuantizedForm::kInt8 ? at::kFloat : at::kBFloat16; }

std::vector<int64_t> scale_shape(QuantizedForm form, int64_t rows, int64_t inner) {
  return form == QuantizedForm::kInt8 ? std::vector<int64_t>{rows} : std::vector<int64_t>{rows, inner / kGroup};
}

// Rows first, first + 1, ... of both files' tensors, side by side. to [rows, bytes]
void read_rows(const StoredTensor& integers, const StoredTensor& scales, int64_t first, const at::Tensor& to) {
  const int64_t width = integers.shape[1], rows = to.size(0), num_scales = scales.numel() / integers.shape[0];
  auto values = at::empty({rows, width}, integers.dtype);
  auto scale = at::empty({rows, num_scales}, scales.dtype);
  integers.read(first * width, values);
  scales.read(first * num_scales, scale);
  to.narrow(1, 0, width).copy_(values);
  to.narrow(1, width, to.size(1) - width).copy_(scale.view(to.scalar_type()));
}

StoredTensor join_pair(const std::string& name, const StoredTensor& integers, const StoredTensor& scales,
                       const std::string& source) {
  const auto stored_form = ops::quantized_form(integers.dtype);
  SY_CHECK(stored_form && integers.shape.size() == 2, source, ": ", name, " has scales, but is no matrix of I8 or U8");
  const auto form = *stored_form;
  const int64_t num_rows = integers.shape[0];
  const int64_t inner = form == QuantizedForm::kInt8 ? integers.shape[1] : 2 * integers.shape[1];
  SY_CHECK(inner > 0 && inner % kGroup == 0 && num_rows > 0 && scales.dtype == scale_dtype(form) &&
               scales.shape == scale_shape(form, num_rows, inner),
           source, ": ", name, kScaleSuffix, " is ", toString(scales.dtype), " ", at::IntArrayRef(scales.shape),
           ", expected ", toString(scale_dtype(form)), " ", at::IntArrayRef(scale_shape(form, num_rows, inner)));
  const int64_t row_bytes = kernels::quantized_row_bytes(form, inner);
  auto rows = std::make_shared<StoredTensor>();
  rows->dtype = ops::quantized_dtype(form);
  rows->shape = {num_rows, row_bytes};
  rows->read = [integers, scales, row_bytes](int64_t first, const at::Tensor& to) {
    read_rows(integers, scales, first / row_bytes, to.view({-1, row_bytes}));
  };
  StoredTensor matrix{at::kFloat, {num_rows, inner}, {}, rows};
  // Values are asked for in any runs of elements; rows are read whole.
  matrix.read = [rows, inner, row_bytes](int64_t first, const at::Tensor& to) {
    constexpr int64_t kRowsAtATime = 256;
    const auto target = to.view({-1});
    for (int64_t done = 0; done < target.numel();) {
      const int64_t row = (first + done) / inner, skipped = (first + done) % inner;
      const int64_t count = std::min(kRowsAtATime, rows->shape[0] - row);
      auto bytes = at::empty({count, row_bytes}, rows->dtype);
      rows->read(row * row_bytes, bytes);
      const auto values = ops::dequantize(bytes, at::kFloat).view({-1});
      const int64_t taken = std::min(values.numel() - skipped, target.numel() - done);
      target.narrow(0, done, taken).copy_(values.narrow(0, skipped, taken));
      done += taken;
    }
  };
  return matrix;
}

}  // namespace

StoredTensors with_quantized(StoredTensors stored, const std::string& source) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : stored)
    if (stored.contains(name + kScaleSuffix)) names.push_back(name);
  for (const auto& name : names) {
    stored[name] = join_pair(name, stored.at(name), stored.at(name + kScaleSuffix), source);
    stored.erase(name + kScaleSuffix);
  }
  return stored;
}

bool can_be_quantized(const ParameterSpec& spec) {
  const bool is_matrix = spec.role == Role::kAttention || spec.role == Role::kFeedForward || spec.role == Role::kOutput;
  return is_matrix && !spec.is_wide && spec.shape.back() % kGroup == 0;
}

std::vector<TensorToWrite> quantized_tensors(const std::string& name, const std::vector<int64_t>& shape,
                                             QuantizedForm form, const std::function<at::Tensor()>& rows) {
  const int64_t num_rows = shape[0], inner = shape[1], width = integer_bytes(form, inner);
  const auto on_meta = [](const std::vector<int64_t>& sizes, at::ScalarType dtype) {
    return at::empty(sizes, at::TensorOptions().dtype(dtype).device(at::kMeta));
  };
  const auto integers = ops::quantized_dtype(form), scales = scale_dtype(form);
  return {{name, on_meta({num_rows, width}, integers), integers,
           [rows, width] { return rows().narrow(1, 0, width).contiguous(); }},
          {name + kScaleSuffix, on_meta(scale_shape(form, num_rows, inner), scales), scales, [=] {
             const auto all = rows();
             return all.narrow(1, width, all.size(1) - width)
                 .contiguous()
                 .view(scales)
                 .view(scale_shape(form, num_rows, inner));
           }}};
}

Json quantization_json(QuantizedForm form) {
  const bool is_int8 = form == QuantizedForm::kInt8;
  return {{"quant_method", "switchyard"}, {"bits", is_int8 ? 8 : 4}, {"group_size", is_int8 ? -1 : kGroup}};
}

}  // namespace switchyard
