// Quantised matrices in files: "X" as integers with "X_scale" beside it.
//
//   int8  X I8 [out, in], X_scale F32 [out]
//   int4  X U8 [out, in / 2], X_scale BF16 [out, in / 64]       the bytes of kernels/quantized.h
#pragma once

#include "base/json.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/stored_tensor.h"
#include "model/parameters.h"
#include "ops/quantized.h"

namespace switchyard {

// Joins every pair of integers and scales to one tensor of the matrix's shape, which reads as values and, in `rows`, as
// it lies in memory. Throws Error, naming `source` and the tensor, for shapes or types that do not go together.
StoredTensors with_quantized(StoredTensors stored, const std::string& source);

// Whether a parameter is stored in small integers: matrices of products whose rows are a multiple of 64, but not the
// embedding (which is looked up) nor what is small and enters f32.
bool can_be_quantized(const ParameterSpec& spec);

// The two tensors to write of a matrix [out, in], which `rows` gives quantised.
std::vector<TensorToWrite> quantized_tensors(const std::string& name, const std::vector<int64_t>& shape,
                                             ops::QuantizedForm form, const std::function<at::Tensor()>& rows);

// config.json's note of it, by which a reader that does not know the form refuses the model.
Json quantization_json(ops::QuantizedForm form);

}  // namespace switchyard
